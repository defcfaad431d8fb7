import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import type { Anchor, BookDiff } from '../src/foundation/order-book/book-rows.ts'
import type { Levels } from '../src/foundation/order-book/level-columns.ts'
import { SIDE_NAMES } from '../src/foundation/order-book/order-book.ts'
import { decimalText } from '../src/foundation/order-book/scaled-units.ts'
import { LiveBook } from '../src/tools/client/live-book.ts'
import type { BookLevel, MarketEvent } from '../src/tools/client/market-event.ts'
import { diffOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { brokers, createTestTopics } from './support/kafka.ts'
import { produce } from './support/messages.ts'
import { eventValue } from './support/records.ts'
import { endsOf, HISTORIES, TrueBook } from './support/true-book.ts'

const ROOT = resolve(import.meta.dirname, '..')
const position = { topic: 'binance.depth', partition: 0, offset: 0 }

function pairs({ count, prices, quantities, priceScale, quantityScale }: Levels): BookLevel[] {
  return Array.from({ length: count }, (_, i) => [
    decimalText(prices[i] ?? 0, priceScale),
    decimalText(quantities[i] ?? 0, quantityScale),
  ])
}

function depth({ bids, asks, receivedUs, ...key }: BookDiff, symbol = 'BTCUSDT'): MarketEvent {
  const levels = { bids: pairs(bids), asks: pairs(asks) }
  return { type: 'depth', symbol, position, ingestionTimestampUs: receivedUs, ...key, ...levels }
}

function snapshot({ epoch, lastUpdateId, receivedUs, bids, asks }: Anchor, limit: number): MarketEvent {
  const levels = { bids: pairs(bids), asks: pairs(asks) }
  const received = { symbol: 'BTCUSDT', position, ingestionTimestampUs: receivedUs }
  return { type: 'depthSnapshot', epoch, lastUpdateId, limit, ...received, ...levels }
}

test('a live book is the true one inside its horizon after every event, or says why it is not known', () => {
  const ends = { known: 0, refused: 0 }
  const lists = {
    lost: fc.uniqueArray(fc.nat(40), { maxLength: 2 }),
    late: fc.array(fc.nat(6), { maxLength: 4 }),
  }
  fc.assert(
    fc.property(HISTORIES, fc.record(lists), (one, { lost, late }) => {
      const truth = new TrueBook(one.orders)
      const { lastUpdateId } = truth
      const diffs = [one.cuts, one.otherCuts.slice(0, 4)]
        .flatMap((cuts) => truth.diffs(endsOf(cuts, lastUpdateId)))
        .filter((_, index) => !lost.includes(index))
        .sort((a, b) => a.lastUpdateId - b.lastUpdateId || a.firstUpdateId - b.firstUpdateId)
      const events = diffs.map((diff) => depth(diff))
      // Snapshots that come before, after or among the changes that they lack.
      for (const [i, distance] of late.entries()) {
        const at = Math.floor(((i + 1) * events.length) / (late.length + 1))
        const updateId = Math.max(
          1,
          Math.min(lastUpdateId, (diffs[at]?.lastUpdateId ?? 1) + 9 - 3 * distance),
        )
        events.splice(at + i, 0, snapshot(truth.snapshot(updateId, one.limit), one.limit))
      }
      const book = new LiveBook('BTCUSDT')
      for (const event of events) {
        const before = book.updateId
        if (!book.take(event)) assert.equal(book.updateId, before)
        if (book.refusal !== null) {
          assert.equal(book.side('bids'), null)
          continue
        }
        for (const name of SIDE_NAMES) {
          const side = book.side(name) ?? assert.fail()
          const price = side.horizon === null ? null : Number(side.horizon.price)
          const isInside = (level: number) =>
            price === null || (name === 'bids' ? level >= price : level <= price)
          const expected = [...truth.levels(name, book.updateId ?? 0)].filter(([level]) => isInside(level))
          assert.deepEqual(
            side.levels.map(({ price: level, quantity }) => [Number(level), Number(quantity)]),
            expected,
          )
        }
      }
      ends[book.refusal === null ? 'known' : 'refused']++
    }),
    { numRuns: 300, seed: 19 },
  )
  assert.ok(ends.known > 50 && ends.refused > 50, JSON.stringify(ends))
})

test('a change that comes late fills the hole, and those that came before it are applied', () => {
  const bids: Pair[] = [['99', '1']]
  const asks: Pair[] = [['101', '1']]
  const start = snapshot(snapshotOf(10, bids, asks), 1000)
  const [after, late, later] = [
    depth(diffOf(15, 20, [['99', '3']], [])),
    depth(diffOf(11, 14, [['99', '2']], [])),
    depth(diffOf(21, 22, [], [])),
  ]
  for (const events of [
    [start, after, late],
    [after, late, start],
  ]) {
    const book = new LiveBook('BTCUSDT')
    for (const event of events) book.take(event)
    assert.deepEqual([book.refusal, book.updateId, book.eventTimeUs], [null, 20, 20_000])
    assert.deepEqual(book.side('bids')?.levels, [{ price: '99', quantity: '3' }])
    assert.equal(book.take(later), true)
    assert.equal(book.refusal, null)
  }
  const partly = new LiveBook('BTCUSDT')
  for (const event of [start, after, depth(diffOf(11, 12, [], []))]) partly.take(event)
  assert.match(partly.refusal ?? '', /13 to 14 are missing/)
})

test('a live book waits for a usable snapshot at its start and after a hole, and names the hole', () => {
  const bids: Pair[] = [['99', '1']]
  const asks: Pair[] = [['101', '1']]
  const book = new LiveBook('BTCUSDT')
  const take = (event: MarketEvent) => book.take(event)
  assert.equal(take(depth(diffOf(11, 20, [['98', '3']], []))), false)
  assert.deepEqual(
    [book.refusal, book.updateId, book.anchor],
    ['No usable snapshot has come yet', null, null],
  )
  assert.equal(take(snapshot(snapshotOf(9, bids, asks), 1000)), false, 'the change 10 is missing')
  assert.equal(take(depth(diffOf(1, 900, [], []), 'ETHUSDT')), false)
  assert.equal(take(snapshot(snapshotOf(15, bids, asks), 1000)), true)
  assert.deepEqual([book.refusal, book.updateId, book.eventTimeUs, book.ageUs], [null, 20, 20_000, 4800])
  assert.equal(take(depth(diffOf(31, 40, [], []))), false)
  assert.equal(
    book.refusal,
    'The update ids 21 to 30 are missing before 1970-01-01T00:00:00.040000Z. The next snapshot ends this',
  )
  assert.equal(book.side('asks'), null)
  assert.equal(take(depth(diffOf(21, 45, [], []))), true, 'another connection delivered them')
  assert.equal(book.refusal, null)
  take(depth(diffOf(46, 46, [['97', '12345678901234567890']], [])))
  take(depth(diffOf(47, 50, [], [])))
  assert.match(book.refusal ?? '', /46 to 46 are missing/)
  assert.equal(take(snapshot(snapshotOf(48, bids, asks), 1000)), true)
  assert.deepEqual([book.refusal, book.updateId, book.anchor?.lastUpdateId], [null, 50, 48])
})

test("the example of the docs prints the top of a book from a topic's events", async () => {
  await using topics = await createTestTopics({ prefix: 'client' })
  const topic = topics.env.KAFKA_DEPTH_TOPIC
  const code = /```ts\n(import \{ LiveBook[\s\S]*?)```/.exec(
    readFileSync(join(ROOT, 'docs/client.md'), 'utf8'),
  )?.[1]
  assert.ok(code !== undefined)
  const program = code
    .replace("'tapeline'", `'${join(ROOT, 'src/tools/client/index.ts')}'`)
    .replace(
      "'localhost:9092'",
      brokers()
        .map((broker) => `'${broker}'`)
        .join(),
    )
    .replace("from: 'earliest'", `from: 'earliest', topics: { depth: '${topic}' }`)
  assert.ok(program.includes(topic))
  const file = join(mkdtempSync(join(tmpdir(), 'client-')), 'program.mts')
  writeFileSync(file, program)
  const levels = { bids: [['99.50', '1.000']], asks: [['100.10', '2']] }
  await produce(topic, 'BTCUSDT', [
    eventValue('depth', { U: 1, u: 5, b: [], a: [] }),
    eventValue('depthSnapshot', { lastUpdateId: 5, limit: 5, ...levels }),
    eventValue('depth', { U: 6, u: 9, b: [['99.75', '0.3']], a: [] }),
    eventValue('depth', { U: 12, u: 15, b: [], a: [] }),
  ])
  const lines: string[] = []
  const running = promisify(execFile)(process.execPath, [file], { timeout: 20_000 })
  running.child.stdout?.on('data', (text: string) => {
    lines.push(...text.trim().split('\n'))
    if (lines.length >= 4) running.child.kill()
  })
  await running.catch((error: unknown) => {
    if (lines.length < 4) throw error
  })
  assert.deepEqual(lines.slice(0, 2), ['No usable snapshot has come yet', '5 99.5 100.1 2'])
  assert.equal(lines[2], '9 99.75 100.1 2')
  assert.match(lines[3] ?? '', /^The update ids 10 to 11 are missing/)
})
