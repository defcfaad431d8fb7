import assert from 'node:assert/strict'
import { test } from 'node:test'
import { z } from 'zod'
import { bookLines } from '../src/cli/book-text.ts'
import { parseMicroseconds } from '../src/cli/options.ts'
import { type BookAt, bookAt } from '../src/foundation/order-book/book-at.ts'
import { cumulative } from '../src/foundation/order-book/cumulative.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { diffOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { bookStore } from './support/book-store.ts'
import { startTapeline } from './support/processes.ts'
import { eventValue, record } from './support/records.ts'

const BIDS: Pair[] = [
  ['99.5', '1'],
  ['99', '0.25'],
  ['98', '12'],
]
const ASKS: Pair[] = [
  ['100.5', '3'],
  ['101', '0.125'],
]

async function knownBook(): Promise<BookAt> {
  const anchor = snapshotOf(5, BIDS, ASKS, { limit: 3 })
  const diffs = [diffOf(1, 5, [], []), diffOf(6, 9, [['99.5', '2']], []), diffOf(10, 12, [], [])]
  const book = await bookAt(bookStore(diffs, [anchor]), { kind: 'update id', epoch: null, updateId: 9 }, 20)
  assert.ok(book.kind === 'book')
  return book
}

test('a book shows its last change, its anchor with its age, both horizons, and aligned levels', async () => {
  const book = await knownBook()
  assert.deepEqual(bookLines('BTCUSDT', book, 20, 200), [
    'BTCUSDT  1970-01-01T00:00:00.009000Z (E)',
    '         update ids 6 (U) to 9 (u)',
    'anchor   snapshot with update id 5, 00:00:00 old',
    '         received 1970-01-01T00:00:00.005700Z',
    'bids     exact down to 98, 200.00 basis points from the middle: 3 levels',
    'asks     complete: 2 levels',
    '',
    'cumulative  quantity   bid |   ask  quantity  cumulative',
    '      2.00      2.00  99.5 | 100.5     3.000       3.000',
    '      2.25      0.25  99.0 | 101.0     0.125       3.125',
    '     14.25     12.00  98.0 |',
  ])
})

test('in a narrow terminal the asks are above the bids, the best prices next to each other', async () => {
  const lines = bookLines('BTCUSDT', await knownBook(), 20, 40)
  assert.deepEqual(lines.slice(7), [
    '  ask  quantity  cumulative',
    '101.0     0.125       3.125',
    '100.5     3.000       3.000',
    '',
    ' bid  quantity  cumulative',
    '99.5      2.00        2.00',
    '99.0      0.25        2.25',
    '98.0     12.00       14.25',
  ])
})

test('a crossed book, and one after which nothing is stored, are named', async () => {
  const lines = bookLines('BTCUSDT', { ...(await knownBook()), isNewest: true, isCrossed: true }, 20, 200)
  assert.match(lines[0] ?? '', /\(E\), the newest stored: later changes are not known$/)
  assert.match(lines[6] ?? '', /^WRONG .*tapeline verify/)
})

test('sums of quantities are exact', () => {
  const quantities = ['9007199254740991', '0.00000001', '0.1', '9']
  assert.deepEqual(cumulative(quantities.map((quantity) => ({ price: '1', quantity }))), [
    '9007199254740991',
    '9007199254740991.00000001',
    '9007199254740991.10000001',
    '9007199254741000.10000001',
  ])
})

test('a time is read with up to six decimals of a second', () => {
  const second = Date.UTC(2026, 0, 31, 12) * 1000
  for (const [text, us] of [
    ['2026-01-31T12:00:00.123456Z', second + 123_456],
    ['2026-01-31 12:00:00.1234', second + 123_400],
    ['2026-01-31T12:00:00.12', second + 120_000],
    ['2026-01-31T12:00Z', second],
    ['2026-01-31', second - 12 * 3_600_000_000],
  ] as const)
    assert.equal(parseMicroseconds('--at', text), us, text)
  for (const text of ['now', '2026-02-30T00:00:00.123456', '2026-01-31T12:00:00.1234567'])
    assert.throws(() => parseMicroseconds('--at', text), { code: 'INPUT', message: /^--at / }, text)
})

const ANSWER = z.object({
  symbol: z.string(),
  kind: z.string(),
  at: z.object({ lastUpdateId: z.number() }).optional(),
  isNewest: z.boolean().optional(),
  reason: z.string().optional(),
  message: z.string().optional(),
  fix: z.string().optional(),
})

/** Two changes after a snapshot, and one after a hole. */
function depthMessages() {
  const diff = (U: number, u: number, b: Pair[]) => {
    const E = MIDNIGHT_MS + u
    return record(eventValue('depth', { E, U, u, b, a: [], ingestion_timestamp_us: E * 1000 + 500 }))
  }
  const received = { ingestion_timestamp_us: MIDNIGHT_MS * 1000 + 5700 }
  const snapshot = { lastUpdateId: 5, limit: 3, bids: BIDS, asks: ASKS, ...received }
  return [
    ...[diff(1, 5, []), diff(6, 9, [['99.5', '2']]), diff(21, 30, [['99.5', '4']])],
    record(eventValue('depthSnapshot', snapshot)),
  ]
}

test('book of an archive: instants of three kinds; a refusal exits with 1, invalid input with 2', async () => {
  await using archive = await createArchive()
  await archive.add('depth', depthMessages())
  const run = async (exitCode: number, ...args: string[]) => {
    await using running = startTapeline(['book', ...args], { env: { ARCHIVE_URL: archive.folder } })
    await running.assertExit(exitCode, 30_000)
    return running.output()
  }
  const json = async (exitCode: number, ...args: string[]) => {
    const output = await run(exitCode, 'btcusdt', '--archive', '--json', ...args)
    return ANSWER.parse(JSON.parse(output.slice(0, output.lastIndexOf('}') + 1)))
  }
  const of9 = await json(0, '--at', '2024-08-09T00:00:00.009000Z')
  assert.deepEqual([of9.symbol, of9.at?.lastUpdateId, of9.isNewest], ['BTCUSDT', 9, false])
  assert.equal((await json(0, '--update-id', '9')).at?.lastUpdateId, 9)
  assert.equal((await json(0, '--receipt', '2024-08-09T00:00:00.009499')).at?.lastUpdateId, 5)
  const text = await run(0, 'BTCUSDT', '--archive', '--at', '2024-08-09T00:00:00.009', '--levels', '1')
  assert.match(text, /^ +2 +2 +99\.5 \| 100\.5 +3 +3$/m)

  const hole = await json(1, '--at', '2024-08-09T00:00:00.020')
  assert.deepEqual([hole.kind, hole.reason], ['refused', 'hole'])
  assert.match(hole.message ?? '', /10 to 20 are missing between 2024-08-09T00:00:00\.009000Z and /)
  assert.match(hole.fix ?? '', /next snapshot/)
  assert.match(await run(1, 'BTCUSDT', '--archive'), /^tapeline: BTCUSDT: .*10 to 20.*\n {2}Wait/)
  assert.match(
    await run(1, 'BTCUSDT', '--archive', '--at', '2024-08-08'),
    /begins with update id 1, at 2024-08-09T00:00:00\.005000Z\n {2}Ask for a later/,
  )
  assert.match(await run(1, 'ETHUSDT', '--archive'), /No change .*\n {2}Check the symbol/)

  for (const wrong of [
    ['BTCUSDT', '--at', 'yesterday'],
    ['BTC-USDT'],
    ['BTCUSDT,ETHUSDT'],
    ['BTCUSDT', '--update-id', '1.5'],
    ['BTCUSDT', '--levels', '0'],
    ['BTCUSDT', '--at', '2024-08-09', '--receipt', '2024-08-09'],
  ])
    await run(2, ...wrong)
})
