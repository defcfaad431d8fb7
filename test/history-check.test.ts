import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { zipOf } from '../src/sandbox/simulator/zip-file.ts'
import { type Comparison, compare, isEqual } from '../src/tools/history/compare.ts'
import { dailyFile } from '../src/tools/history/daily-file.ts'
import type { StoredRow } from '../src/tools/history/history-store.ts'

const folder = mkdtempSync(join(tmpdir(), 'tapeline-history-'))
after(() => rmSync(folder, { recursive: true }))

const DATE = '2026-01-31'
const START_US = Date.parse(DATE) * 1000
const IDS = [101, 102, 103, 104, 105, 106]

const timeOf = (id: number) => START_US + id * 1001

/** A line of a file of trades. */
const tradeLine = (id: number, changes: Partial<Record<'price' | 'time' | 'quantity', string>> = {}) =>
  [
    id,
    changes.price ?? '61837.63000000',
    changes.quantity ?? '0.00250000',
    '154.59407500',
    changes.time ?? timeOf(id),
    'True',
    'True',
  ].join()

const aggLine = (id: number, first = id * 2, last = first + 1) =>
  [id, '61837.63000000', '0.00250000', first, last, timeOf(id), 'False', 'True'].join()

const tradeRow = (id: number): StoredRow => ({
  ...{ id, price: '61837.63000000', quantity: '0.00250000', timeUs: timeOf(id) },
  ...{ isBuyerMaker: true, firstTradeId: null, lastTradeId: null, source: 'stream' },
})

const aggRow = (id: number): StoredRow => ({
  ...tradeRow(id),
  ...{ isBuyerMaker: false, firstTradeId: id * 2, lastTradeId: id * 2 + 1 },
})

interface FileOptions {
  readonly kind?: 'trades' | 'aggTrades'
  readonly date?: string
  readonly entry?: string
  readonly checksum?: string
  readonly spoil?: (zip: Buffer) => Buffer
}

/** Compares a file of these lines with stored rows. */
async function check(
  lines: readonly string[],
  stored: readonly StoredRow[],
  options: FileOptions = {},
): Promise<Comparison> {
  const { kind = 'trades', date = DATE, spoil = (zip) => zip } = options
  const name = `BTCUSDT-${kind}-${date}`
  const path = join(folder, `${name}.zip`)
  const zip = spoil(await zipOf(options.entry ?? `${name}.csv`, [`${lines.join('\n')}\n`]))
  writeFileSync(path, zip)
  const sum = options.checksum ?? createHash('sha256').update(zip).digest('hex')
  writeFileSync(`${path}.CHECKSUM`, `${sum}  ${name}.zip\n`)
  return compare(dailyFile(path), 'microsecond', asStored(stored))
}

/** In portions of two rows. */
async function* asStored(rows: readonly StoredRow[]): AsyncGenerator<readonly StoredRow[]> {
  for (let at = 0; at < rows.length; at += 2) yield rows.slice(at, at + 2)
}

const whats = ({ defects }: Comparison) =>
  defects.map(({ line, what }) => (line === null ? what : `${line}: ${what}`))

test('a file that equals the stored rows is equal, with or without a header, in either unit', async () => {
  const rows = IDS.map(tradeRow)
  const lines = IDS.map((id) => tradeLine(id))
  const found = await check(lines, rows)
  assert.equal(isEqual(found), true, JSON.stringify(found))
  assert.deepEqual([found.rows, found.stored, found.checksum, found.unit], [6, 6, 'matches', 'microsecond'])
  const header = 'id,price,qty,quote_qty,time,is_buyer_maker,is_best_match'
  assert.equal(isEqual(await check([header, ...lines], rows)), true)
  assert.equal(
    isEqual(
      await check(
        IDS.map((id) => aggLine(id)),
        IDS.map(aggRow),
        { kind: 'aggTrades' },
      ),
    ),
    true,
  )
  // Before 2025 the files have milliseconds, and the tables what the exchange sent then.
  const date = '2024-08-08'
  const old = IDS.map((id) => ({ ...tradeRow(id), timeUs: Date.parse(date) * 1000 + id * 1001 }))
  const coarse = IDS.map((id) =>
    tradeLine(id, { time: String(Date.parse(date) + Math.floor((id * 1001) / 1000)) }),
  )
  assert.equal(isEqual(await check(coarse, old, { date })), true)
})

test('a decimal without a point equals the stored one, whatever its length', async () => {
  for (const whole of ['5', '1234567', '12345678', '123456789']) {
    const row = { ...tradeRow(101), price: `${whole}.00000000` }
    assert.deepEqual((await check([tradeLine(101, { price: whole })], [row])).altered, [], whole)
  }
})

test('names rows that one side lacks, and every altered field', async () => {
  const stored = [tradeRow(100), ...[101, 103, 104, 106].map(tradeRow), tradeRow(108)]
  const lines = IDS.map((id) =>
    tradeLine(
      id,
      { 104: { price: '61837.64000000' }, 106: { time: String(timeOf(106) + 1), quantity: '0.0025' } }[id] ??
        {},
    ),
  )
  const found = await check(lines, stored)
  assert.deepEqual(found.notStored, [
    { from: 102, to: 102 },
    { from: 105, to: 105 },
  ])
  assert.deepEqual(found.notInFile, [
    { from: 100, to: 100 },
    { from: 108, to: 108 },
  ])
  assert.deepEqual(found.altered, [
    { id: 104, field: 'price', file: '61837.64000000', stored: '61837.63000000' },
    { id: 106, field: 'timeUs', file: String(timeOf(106) + 1), stored: String(timeOf(106)) },
  ])
})

test('names what is wrong with the file itself', async (context) => {
  const lines = IDS.map((id) => tradeLine(id))
  const rows = IDS.map(tradeRow)
  await context.test('truncated', async () => {
    const found = await check(lines, rows, { spoil: (zip) => zip.subarray(0, -30) })
    assert.match(whats(found).join(), /the zip file is damaged/)
  })
  await context.test('altered content', async () => {
    const flip = (zip: Buffer) => {
      const copy = Buffer.from(zip)
      copy[60] = (copy[60] ?? 0) ^ 1
      return copy
    }
    assert.match(whats(await check(lines, rows, { spoil: flip })).join(), /damaged|CRC-32/)
  })
  await context.test('wrong checksum', async () => {
    const found = await check(lines, rows, { checksum: '0'.repeat(64) })
    assert.deepEqual(
      [found.checksum, whats(found)],
      ['differs', ['its SHA-256 differs from that of its .CHECKSUM']],
    )
  })
  await context.test('ids missing', async () => {
    const found = await check(lines.toSpliced(2, 2), rows)
    assert.deepEqual(
      [found.missingInFile, found.notInFile],
      [[{ from: 103, to: 104 }], [{ from: 103, to: 104 }]],
    )
  })
  await context.test('other unit', async () => {
    const coarse = IDS.map((id) => tradeLine(id, { time: String(Math.floor(timeOf(id) / 1000)) }))
    const found = await check(coarse, rows)
    assert.deepEqual(whats(found), ['its times are milliseconds; files of this day have microseconds'])
    assert.deepEqual(found.altered, [], 'times are compared in the coarser unit')
  })
  await context.test('two aggregates under one id', async () => {
    const agg = IDS.map((id) => aggLine(id))
    const found = await check(agg.toSpliced(3, 0, aggLine(103, 300, 305), aggLine(103)), IDS.map(aggRow), {
      kind: 'aggTrades',
    })
    assert.deepEqual(whats(found), ['4: id 103 has two different rows', '5: id 103 is repeated'])
  })
  await context.test('rows that are none', async () => {
    const found = await check(
      [
        ...lines,
        '107,1,2',
        'x,1,1,1,1,True,True',
        tradeLine(107, { price: '1e3' }),
        tradeLine(107, { time: String(START_US - 1) }),
        lines[0] ?? '',
      ],
      rows,
    )
    assert.deepEqual(whats(found), [
      '7: it has 3 fields instead of 7',
      '8: x is no id',
      '9: 1e3 is no decimal that a column can store',
      '10: id 107 is of another day',
      '11: id 101 follows 106',
    ])
  })
  await context.test('another file inside', async () => {
    assert.match(
      whats(await check(lines, rows, { entry: 'ETHUSDT-trades-2026-01-31.csv' })).join(),
      /instead of BTCUSDT-trades/,
    )
  })
})

test('refuses a name that says neither symbol nor day', () => {
  for (const name of [
    'trades.zip',
    'BTCUSDT-klines-2026-01-31.zip',
    'BTCUSDT-trades-2026-02-31.zip',
    'btcusdt-trades-2026-01-31.zip',
  ])
    assert.throws(() => dailyFile(name), { code: 'INPUT' }, name)
})
