import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { Decoder } from '../src/foundation/kafka/message-decoder.ts'
import type { OutgoingRecord } from '../src/foundation/kafka/record-sender.ts'
import { ABSENT } from '../src/foundation/market/event-fields.ts'
import type { Gap } from '../src/foundation/market/gap.ts'
import type { IdRow } from '../src/foundation/market/gap-requests.ts'
import { type IdRange, normalise } from '../src/foundation/market/id-ranges.ts'
import type { TimeUnit } from '../src/foundation/market/time-unit.ts'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'
import { DEFINITIONS } from '../src/foundation/settings/definitions.ts'
import { zipOf } from '../src/sandbox/simulator/zip-file.ts'
import { archiveHistory } from '../src/tools/history/archive-history.ts'
import { dailyFile, dailyFiles } from '../src/tools/history/daily-file.ts'
import { closingRows } from '../src/tools/history/gap-closing.ts'
import { publishMissing, readWhole } from '../src/tools/history/import-file.ts'
import { TradePublisher } from '../src/tools/history/trade-publisher.ts'
import { untilStored } from '../src/tools/history/until-stored.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { columns } from './support/columns.ts'
import { gapRow, record, tradeValue } from './support/records.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const folder = mkdtempSync(join(tmpdir(), 'tapeline-import-'))
after(() => rmSync(folder, { recursive: true }))

const DATE = '2026-01-31'
const START_US = Date.parse(DATE) * 1000
const NOW_MS = Date.UTC(2026, 5, 1)
const timeOf = (id: number) => START_US + id * 1001

const tradeLine = (id: number, price = '61837.63000000') =>
  `${id},${price},0.00250000,154.59407500,${timeOf(id)},${id % 2 === 0 ? 'True' : 'False'},True`
const aggLine = (id: number, first = id * 2, last = first + 1) =>
  `${id},61837.63,0.0025,${first},${last},${timeOf(id)},False,False`

/** Writes a file with its checksum. */
async function write(
  lines: readonly string[],
  { kind = 'trades', date = DATE, sum = null as string | null } = {},
): Promise<string> {
  const name = `BTCUSDT-${kind}-${date}`
  const path = join(folder, `${name}.zip`)
  const zip = await zipOf(`${name}.csv`, [`${lines.join('\n')}\n`])
  writeFileSync(path, zip)
  writeFileSync(`${path}.CHECKSUM`, `${sum ?? createHash('sha256').update(zip).digest('hex')}  ${name}.zip\n`)
  return path
}

interface Sent {
  readonly partition: number
  readonly headers: Readonly<Record<string, string>>
  readonly timestampMs: number
  readonly text: string
}

/** Imports a file into a sender that keeps the messages. */
async function importInto(
  path: string,
  {
    stored = [] as readonly IdRange[],
    open = [] as readonly IdRange[],
    unit = 'microsecond' as TimeUnit,
    epoch = 0,
    send = async () => {},
  } = {},
) {
  const sent: Sent[] = []
  const sizes: number[] = []
  const sender = {
    async send(records: readonly OutgoingRecord[]) {
      sizes.push(records.length)
      await send()
      for (const { partition, headers, timestampMs, slice } of records) {
        const texts = [...headers].map(([name, text]) => [String(name), String(text)] as const)
        const text = slice?.bytes.toString('utf8', slice.start, slice.end) ?? ''
        sent.push({ partition, headers: Object.fromEntries(texts), timestampMs, text })
      }
    },
  }
  const read = await readWhole(dailyFile(path), () => {})
  if (read.ids === null) return { read, imported: null, sent, sizes }
  const to = { topic: 'trades', partitions: 3, wallMs: () => NOW_MS }
  const publisher = new TradePublisher(sender, to, read.file, unit, epoch)
  const store = {
    async *idsOf() {
      yield stored
    },
  }
  const imported = await publishMissing(read, store, epoch, open, publisher, () => {})
  return { read, imported, sent, sizes }
}

const idsOf = (sent: readonly Sent[]) => sent.map(({ text }) => JSON.parse(text).t ?? JSON.parse(text).a)
const range = (from: number, to: number) => ({ from, to })

test('publishes the ids that are neither stored nor in an open gap, marked, in the unit of the deployment', async () => {
  const path = await write([10, 11, 12, 13, 15, 16].map((id) => tradeLine(id)))
  const options = { stored: [range(9, 10), range(16, 20)], open: [range(13, 14)], epoch: 2 }
  const { imported, sent } = await importInto(path, options)
  assert.deepEqual(imported, { published: [range(11, 12), range(15, 15)], stored: 2, left: 1 })
  const stamps = { source: 'archive', ingestion_timestamp: NOW_MS, ingestion_timestamp_us: NOW_MS * 1000 }
  const trade = { e: 'trade', s: 'BTCUSDT', t: 11, p: '61837.63000000', q: '0.00250000' }
  assert.equal(sent[0]?.text, JSON.stringify({ ...trade, T: timeOf(11), m: false, M: true, ...stamps }))
  assert.deepEqual([sent[0]?.headers, sent[0]?.timestampMs], [{ schema: 'trade/2', epoch: '2' }, NOW_MS])
  assert.deepEqual(idsOf(sent), [11, 12, 15])
  const coarse = await importInto(path, { unit: 'millisecond' })
  assert.deepEqual(coarse.sent[0]?.headers, { schema: 'trade/1' })
  assert.equal(JSON.parse(coarse.sent[0]?.text ?? '').T, Math.floor(timeOf(10) / 1000))
})

test('an id of before a restart of the ids is not that of a row of the file', async () => {
  await using archive = await createArchive()
  const headers = { schema: 'trade/1' }
  const value = (t: number, T: number) => tradeValue({ t, T, E: T, s: 'BTCUSDT' })
  await archive.add('trades', [
    record(value(1, MIDNIGHT_MS), null, headers),
    record(value(2, MIDNIGHT_MS + 1), null, headers),
    record(value(2, MIDNIGHT_MS + 2), null, { ...headers, epoch: '1' }),
  ])
  const store = archiveHistory(await archive.openReader())
  const file = dailyFile('BTCUSDT-trades-2024-08-09.zip')
  const stored = (epoch: number) => Array.fromAsync(store.idsOf(file, range(1, 9), epoch))
  assert.deepEqual(await stored(0), [[range(1, 2)]])
  assert.deepEqual(await stored(1), [[range(2, 2)]])
})

test('the consumer reads an imported row as it is in the file', async () => {
  const path = await write([aggLine(1), aggLine(2, -1, -1), aggLine(3, 2 ** 50, 2 ** 50 + 7)], {
    kind: 'aggTrades',
  })
  const { sent } = await importInto(path)
  const decoder = new Decoder()
  const rows = sent.map(({ text, headers }) => {
    assert.equal(decoder.decode('trades', record(Buffer.from(text), null, headers)), null, text)
    const { id, price, quantity, tradeTimeUs, firstTradeId, lastTradeId, isBuyerMaker, source } =
      decoder.event
    return [id, price, quantity, tradeTimeUs - timeOf(id), firstTradeId, lastTradeId, isBuyerMaker, source]
  })
  const same = ['61837.63', '0.0025', 0] as const
  assert.deepEqual(rows, [
    [1, ...same, 2, 3, false, 'archive'],
    [2, ...same, ABSENT, ABSENT, false, 'archive'],
    [3, ...same, 2 ** 50, 2 ** 50 + 7, false, 'archive'],
  ])
})

test('a long file is sent in batches, in order, and a failed send ends the import', async () => {
  const ids = Array.from({ length: 20_000 }, (_, i) => i)
  const path = await write(ids.map((id) => tradeLine(id)))
  const { imported, sent, sizes } = await importInto(path)
  assert.deepEqual(imported?.published, [range(0, 19_999)])
  assert.deepEqual(idsOf(sent), ids)
  assert.ok(sizes.length > 4 && Math.max(...sizes) <= 4000, sizes.join())
  let sends = 0
  const send = async () => {
    if (++sends === 2) throw new Error('the broker is gone')
  }
  await assert.rejects(importInto(path, { send }), /the broker is gone/)
})

test('refuses a file that cannot be trusted, and imports one with a second row under an id', async () => {
  const lines = [1, 2, 3].map((id) => tradeLine(id))
  const refused = async (path: string) => {
    const { read, imported } = await importInto(path)
    assert.equal(imported, null)
    return read.rows.defects.map(({ kind }) => kind)
  }
  assert.deepEqual(await refused(await write(lines, { sum: '0'.repeat(64) })), ['file'])
  assert.deepEqual(await refused(await write([...lines, '4,x'])), ['line'])
  assert.deepEqual(await refused(await write([])), ['file'])
  const times = lines.map((line) => line.replace(/,(\d{13})\d{3},/, ',$1,'))
  assert.deepEqual(await refused(await write(times)), ['unit'])
  const second = [tradeLine(1), tradeLine(1, '1.00000000'), tradeLine(1), tradeLine(2)]
  const { read, sent } = await importInto(await write(second))
  assert.deepEqual(
    read.rows.defects.map(({ kind, line }) => [kind, line]),
    [
      ['second', 2],
      ['repeated', 3],
    ],
  )
  assert.deepEqual(idsOf(sent), [1, 2])
  assert.equal(JSON.parse(sent[0]?.text ?? '').p, '61837.63000000', 'the first one counts')
})

test('a gap of which a part was imported is split, and its first part keeps its id', () => {
  const row = unrecoverable(100, 109, 3)
  const other = { ...unrecoverable(120, 120, 5), gap_id: 'BTCUSDT/trade/0/104' }
  const close = (...missing: IdRange[]) => closed([{ row, missing }], [row, other])
  assert.deepEqual(close(), [[row.gap_id, 7, 100, 109, 'filled']])
  assert.deepEqual(close(range(100, 109)), [])
  assert.deepEqual(close(range(104, 105)), [
    ['BTCUSDT/trade/0/104/7', 7, 104, 105, 'unrecoverable'],
    ['BTCUSDT/trade/0/106', 7, 106, 109, 'filled'],
    [row.gap_id, 7, 100, 103, 'filled'],
  ])
  assert.deepEqual(close(range(100, 101)).at(-1), [row.gap_id, 7, 100, 101, 'unrecoverable'])
})

test('an import that is killed between the rows of a split gap leaves each id a row, and the next completes it', () => {
  const rows = [unrecoverable(100, 109, 3), unrecoverable(200, 204, 1)]
  const missing = new Map([
    [100, [range(102, 103), range(107, 107)]],
    [200, [range(200, 201)]],
  ])
  const closeAll = (all: readonly IdRow[]) =>
    closingRows(
      all
        .filter(({ status }) => status === 'unrecoverable')
        .map((row) => ({
          row,
          missing: [...missing.values()]
            .flat()
            .filter(({ from, to }) => from <= row.to_id && to >= row.from_id),
        })),
      all,
      NOW_MS,
    ).map(withIds)
  const sent = closeAll(rows)
  const expected = [
    [100, 101, 'filled'],
    [102, 103, 'unrecoverable'],
    [104, 106, 'filled'],
    [107, 107, 'unrecoverable'],
    [108, 109, 'filled'],
    [200, 201, 'unrecoverable'],
    [202, 204, 'filled'],
  ]
  for (let killedAfter = 0; killedAfter <= sent.length; killedAfter++) {
    const left = newest([...rows, ...sent.slice(0, killedAfter)])
    const ranges = normalise(left.map(({ from_id, to_id }) => range(from_id, to_id)))
    assert.deepEqual(ranges, [range(100, 109), range(200, 204)], `killed after ${killedAfter} rows`)
    const ended = newest([...left, ...closeAll(left)]).sort((one, other) => one.from_id - other.from_id)
    assert.deepEqual(
      columns(ended, 'from_id', 'to_id', 'status'),
      expected,
      `killed after ${killedAfter} rows`,
    )
  }
})

function unrecoverable(from_id: number, to_id: number, revision: number): IdRow {
  const gap_id = `BTCUSDT/trade/0/${from_id}`
  return withIds(gapRow({ gap_id, from_id, to_id, status: 'unrecoverable', revision }))
}

function withIds(row: Gap): IdRow {
  const { from_id, to_id } = row
  return from_id === null || to_id === null ? assert.fail('a row without ids') : { ...row, from_id, to_id }
}

/** The last revision of each row. */
function newest(rows: readonly IdRow[]): IdRow[] {
  return [...new Map(rows.map((row) => [row.gap_id, row])).values()]
}

function closed(gaps: Parameters<typeof closingRows>[0], rows: readonly IdRow[]) {
  return columns(closingRows(gaps, rows, NOW_MS), 'gap_id', 'revision', 'from_id', 'to_id', 'status')
}

test('an import waits for a service that writes every five minutes, and not for one that does not run', async () => {
  const FLUSH_MS = Number(DEFINITIONS.ARCHIVE_FLUSH_INTERVAL_MS.fallback)
  assert.equal(FLUSH_MS, 300_000)
  const wait = async (runsForMs: number) => {
    const clock = new VirtualClock()
    /** Writes at most 5 messages in each interval. */
    const unstored = async () =>
      Math.max(0, 12 - 5 * Math.floor(Math.min(clock.monotonicMs(), runsForMs) / FLUSH_MS))
    const { signal } = new AbortController()
    const waiting = untilStored(unstored, ['trades'], { clock, flushIntervalMs: FLUSH_MS, signal }, () => {})
    const ended = waiting.then(
      () => clock.monotonicMs(),
      (error: unknown) => error,
    )
    await clock.advance(4 * FLUSH_MS)
    return ended
  }
  assert.equal(await wait(Number.POSITIVE_INFINITY), 3 * FLUSH_MS)
  const error = await wait(0)
  assert.ok(isTapelineError(error, 'DATABASE'))
  assert.match(error.message, /^12 messages of trades are not stored, and none was for 660 s$/)
})

test('takes the daily files of a folder in order, and refuses a day that is given twice', async () => {
  const own = mkdtempSync(join(folder, 'downloads-'))
  for (const name of [
    'ETHUSDT-trades-2026-01-30',
    'BTCUSDT-aggTrades-2026-01-31',
    'BTCUSDT-trades-2026-01-31',
  ])
    for (const end of ['.zip', '.zip.CHECKSUM']) writeFileSync(join(own, name + end), '')
  writeFileSync(join(own, 'BTCUSDT-1m-2026-01-31.zip'), '')
  const files = await dailyFiles([own])
  assert.deepEqual(
    files.map(({ name }) => name),
    ['BTCUSDT-trades-2026-01-31.zip', 'BTCUSDT-aggTrades-2026-01-31.zip', 'ETHUSDT-trades-2026-01-30.zip'],
  )
  const again = files[0]?.path ?? ''
  assert.equal((await dailyFiles([again, `${again}.CHECKSUM`])).length, 1, 'a pattern may match checksums')
  await assert.rejects(dailyFiles([own, again]), { code: 'INPUT', message: /is given twice/ })
  await assert.rejects(dailyFiles([mkdtempSync(join(folder, 'empty-'))]), { code: 'INPUT' })
  await assert.rejects(dailyFiles([join(folder, 'missing')]), { code: 'INPUT', message: /cannot be read/ })
})
