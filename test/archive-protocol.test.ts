import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { compact } from '../src/archive/compaction.ts'
import { duckDbCompaction } from '../src/archive/day-merge.ts'
import { OpenSegments } from '../src/archive/open-segments.ts'
import { SegmentWriter } from '../src/archive/segment-writer.ts'
import { markForSweep, sweep } from '../src/archive/sweep.ts'
import { markArchive } from '../src/foundation/archive/archive-mark.ts'
import { CommitChain } from '../src/foundation/archive/commit-chain.ts'
import { newestDayList } from '../src/foundation/archive/day-list.ts'
import { openDuckDb } from '../src/foundation/archive/duckdb.ts'
import type { ObjectStore } from '../src/foundation/archive/object-store.ts'
import type { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { openTestStore } from './support/archive-store.ts'
import { aggTradeValue, bookTickerValue, fetched, record, TOPIC_ID, tradeValue } from './support/records.ts'

const DAY_MS = 86_400_000
/** 2024-08-09 00:00 UTC. */
const MIDNIGHT_MS = Date.UTC(2024, 7, 9)
const PARTITION = { topic: 'trades', topicId: TOPIC_ID, partition: 0 }

async function parts(context: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-archive-'))
  const store = await openTestStore(context)
  const engine = await openDuckDb({ memoryBytes: 256 << 20, tempFolder: join(folder, 'temp'), threads: 1 })
  const duckDb = await engine.connect()
  context.after(() => {
    engine.close()
    rmSync(folder, { recursive: true })
  })
  const chain = new CommitChain(store, PARTITION)
  await chain.begin({ firstOffset: 0, at: 0 })
  return { duckDb, chain, ...duckDbCompaction(store, duckDb, systemClock()) }
}

/** A store that reads in another way. */
function withRead(store: ObjectStore, read: ObjectStore['read']): ObjectStore {
  return new Proxy(store, {
    get(target, name) {
      const found: unknown = name === 'read' ? read : Reflect.get(target, name)
      return typeof found === 'function' ? found.bind(target) : found
    },
  })
}

type Parts = Awaited<ReturnType<typeof parts>>

/** Reads messages from an offset on, and returns their segment. */
async function segmentOf({ chain }: Parts, messages: readonly FetchedMessage[], from?: number) {
  const head = await chain.head()
  assert.ok(head !== null)
  const open = new OpenSegments({
    kindOf: new Map([['trades', 'trades']]),
    ...{ flushIntervalMs: 1000, sealBytes: 1 << 30, maxBytes: 1 << 30 },
  })
  open.assign([{ ...PARTITION, head }])
  assert.equal(open.accept(fetched('trades', 0, from ?? head.nextOffset, messages), 0, MIDNIGHT_MS), null)
  open.drain()
  const segment = open.take(0)
  assert.ok(segment !== null)
  return segment
}

async function archive(all: Parts, messages: readonly FetchedMessage[]): Promise<boolean> {
  return new SegmentWriter(await segmentOf(all, messages), all.store, all.duckDb, all.clock).write()
}

/** Files as a table of the engine. */
async function readOf({ store }: Parts, keys: readonly string[]): Promise<string> {
  const paths = await Promise.all(keys.map((key) => store.localCopy(key)))
  return `read_parquet([${paths.map((path) => `'${path}'`).join()}])`
}

/** A trade whose time is so long after midnight. */
function trade(id: number, afterMs: number, fields: Readonly<Record<string, unknown>> = {}): FetchedMessage {
  return record(tradeValue({ t: id, T: MIDNIGHT_MS + afterMs, E: MIDNIGHT_MS + afterMs, ...fields }))
}

test('two services that start for the first time at once mark one archive', async (context) => {
  const store = await openTestStore(context)
  const identity = { source: 'binance', timeUnit: 'microsecond' } as const
  let isFirst = true
  const slower = withRead(store, async (key) => {
    const found = await store.read(key)
    if (isFirst) await markArchive(store, identity)
    isFirst = false
    return found
  })
  await markArchive(slower, identity)
  await assert.rejects(markArchive(slower, { ...identity, source: 'other' }), /binance/)
})

test('a segment has every value digit for digit', async (context) => {
  const all = await parts(context)
  const extremes = [
    ['0.00000001', '999999999999.99999999'],
    ['89999999.99999999', '90000000.00000001'],
    ['184467440737.09551615', '184467440737.09551616'],
    ['7', '0.5'],
  ]
  const messages = extremes.map(([p, q], i) =>
    record(tradeValue({ t: i + 1, s: i === 3 ? '1000SATSFDUSD币' : 'BTCUSDT', p, q, m: i % 2 === 0 })),
  )
  const late = ['backfill', 'archive'].map((source, i) =>
    record(tradeValue({ t: 9 + i, E: undefined, source })),
  )
  const agg = record(aggTradeValue({ a: 2 ** 53 - 1, f: -1, l: -1 }))
  const text = Buffer.from('{"e":"trade"')
  const segment = await segmentOf(all, [...messages, ...late, agg, record(text)])
  assert.equal(await new SegmentWriter(segment, all.store, all.duckDb, all.clock).write(), true)
  const [written] = await all.chain.records()
  const keyOf = (table: string) => written?.files.find((file) => file.table === table)?.key ?? ''
  const read = async (table: string, columns: string) => {
    const from = await readOf(all, [keyOf(table)])
    const rows = await all.duckDb.rows<object>(`SELECT ${columns} FROM ${from} ORDER BY _offset`)
    return rows.map((row) => Object.values(row))
  }
  assert.deepEqual(
    await read('raw_trades', 'symbol, price::VARCHAR, quantity::VARCHAR, is_buyer_maker, source'),
    [
      ['BTCUSDT', '0.00000001', '999999999999.99999999', true, 'stream'],
      ['BTCUSDT', '89999999.99999999', '90000000.00000001', false, 'stream'],
      ['BTCUSDT', '184467440737.09551615', '184467440737.09551616', true, 'stream'],
      ['1000SATSFDUSD币', '7.00000000', '0.50000000', false, 'stream'],
      ['BTCUSDT', '61837.63000000', '0.02000000', true, 'backfill'],
      ['BTCUSDT', '61837.63000000', '0.02000000', true, 'archive'],
    ],
  )
  assert.deepEqual(
    await read(
      'raw_trades',
      'trade_id, epoch_us(trade_time), epoch_us(event_time), epoch_us(ingestion_timestamp)',
    ),
    [
      ...[1n, 2n, 3n, 4n].map((id) => [id, 1723161255342000n, 1723161255343000n, 1723161255400123n]),
      ...[9n, 10n].map((id) => [id, 1723161255342000n, null, 1723161255400123n]),
    ],
  )
  assert.deepEqual(await read('agg_trades', 'trade_id, first_trade_id, last_trade_id'), [
    [2n ** 53n - 1n, null, null],
  ])
  const [letter] = await read('dead_letters', "json->>'$.reason', json->>'$.offset', json->>'$.payload'")
  assert.deepEqual(letter, ['value is not JSON', '7', text.toString('base64')])
})

test('of two owners at one offset only the first commits, and the other leaves no file', async (context) => {
  const all = await parts(context)
  const [first, second] = [
    await segmentOf(all, [trade(1, 0)]),
    await segmentOf(all, [trade(1, 0), trade(2, 0)]),
  ]
  const writers = [first, second].map((one) => new SegmentWriter(one, all.store, all.duckDb, all.clock))
  const isOurs = await Promise.all(writers.map((one) => one.write()))
  assert.deepEqual(isOurs.toSorted(), [false, true])
  // The owner that has committed may repeat it after an answer was lost.
  const winner = isOurs.indexOf(true)
  assert.equal(await writers[winner]?.write(), true)
  assert.deepEqual(await all.chain.head(), { incarnation: 1, nextOffset: winner + 1, leaderEpoch: -1 })
  assert.equal((await all.store.list('_segments')).length, 1)
  assert.deepEqual(readdirSync(all.store.stagingFolder), [])
})

test('a lost tail begins another incarnation, for both of two owners the same', async (context) => {
  const all = await parts(context)
  await archive(all, [trade(1, 0), trade(2, 0), trade(3, 0)])
  const late = await segmentOf(all, [trade(5, 0)])
  const begun = await Promise.all(
    [1, 2].map((restartAt) =>
      all.chain.end({ incarnation: 1, offset: 3 }, { restartAt, leaderEpoch: 7, at: 0 }),
    ),
  )
  assert.deepEqual(begun[0], begun[1])
  assert.deepEqual([begun[0]?.incarnation, begun[0]?.leaderEpoch], [2, 7])
  assert.equal(await archive(all, [trade(4, 0)]), true)
  const isOurs = await new SegmentWriter(late, all.store, all.duckDb, all.clock).write()
  assert.equal(isOurs, false, 'an owner that is still in the first incarnation adds nothing to it')
  const records = await all.chain.records()
  assert.deepEqual(
    records.map(({ incarnation, nextOffset }) => [incarnation, nextOffset]),
    [
      [1, 3],
      [2, (begun[0]?.nextOffset ?? 0) + 1],
    ],
  )
})

test('a chain without one of its records is refused, with the fix', async (context) => {
  const all = await parts(context)
  for (const id of [1, 2, 3]) await archive(all, [trade(id, 0)])
  const keys = await all.store.list('_commits')
  await all.store.remove(keys[2] ?? '')
  await assert.rejects(all.chain.records(), { code: 'ARCHIVE', message: /expected .*0001\.json/ })
})

test('a day is published once it is over, each row once, sorted by symbol, time and id', async (context) => {
  const all = await parts(context)
  await archive(all, [trade(2, 5), trade(1, 5), trade(1, 4, { s: 'ETHUSDT' }), trade(9, -1)])
  await archive(all, [trade(1, 5, { source: 'backfill' }), trade(3, 0), trade(4, DAY_MS)])
  assert.deepEqual(await compact(all, () => false), [])
  const published = await compact(all, (date) => date === '2024-08-09')
  assert.deepEqual(published, [
    { table: 'raw_trades', date: '2024-08-09', number: 1, rows: 4, duplicates: 1, conflicts: null },
  ])
  const rows = await all.duckDb.rows<object>(
    `SELECT symbol, trade_id, price::VARCHAR FROM ${await readOf(all, await all.store.list('raw_trades'))}`,
  )
  assert.deepEqual(
    rows.map((row) => Object.values(row)),
    [
      ['BTCUSDT', 3n, '61837.63000000'],
      ['BTCUSDT', 1n, '61837.63000000'],
      ['BTCUSDT', 2n, '61837.63000000'],
      ['ETHUSDT', 1n, '61837.63000000'],
    ],
  )
  const list = await newestDayList(all.store, 'raw_trades', '2024-08-09')
  assert.deepEqual(list?.symbols, {
    BTCUSDT: [{ epoch: 0, rows: 3, firstId: 1, lastId: 3, missingIds: 0 }],
    ETHUSDT: [{ epoch: 0, rows: 1, firstId: 1, lastId: 1, missingIds: 0 }],
  })
  assert.deepEqual(await compact(all, (date) => date === '2024-08-09'), [], 'nothing is published again')
})

test('late rows change only the files of their symbols, and a published row stays', async (context) => {
  const all = await parts(context)
  await archive(all, [trade(1, 0), trade(1, 0, { s: 'ETHUSDT' })])
  await compact(all, () => true)
  await archive(all, [trade(1, 0, { p: '2' }), trade(2, 1), trade(7, 1, { s: 'XRPUSDT' })])
  const published = await compact(all, () => false)
  assert.deepEqual(
    published.map(({ number, duplicates }) => [number, duplicates]),
    [[2, 1]],
  )
  const list = await newestDayList(all.store, 'raw_trades', '2024-08-09')
  const from = await readOf(all, list?.files.map(({ key }) => key) ?? [])
  const rows = await all.duckDb.rows<object>(
    `SELECT symbol, trade_id, price::VARCHAR FROM ${from} ORDER BY ALL`,
  )
  assert.deepEqual(
    rows.map((row) => Object.values(row)),
    [
      ['BTCUSDT', 1n, '61837.63000000'],
      ['BTCUSDT', 2n, '61837.63000000'],
      ['ETHUSDT', 1n, '61837.63000000'],
      ['XRPUSDT', 7n, '61837.63000000'],
    ],
  )
  assert.deepEqual(list?.symbols['BTCUSDT'], [{ epoch: 0, rows: 2, firstId: 1, lastId: 2, missingIds: 0 }])
})

test('a segment ends at its age, at eight days, or as the largest when memory is short', async (context) => {
  const all = await parts(context)
  const days = Array.from({ length: 9 }, (_, i) => trade(i, i * DAY_MS))
  const segment = await segmentOf(all, days.slice(0, 8))
  assert.equal(segment.messages, 8)
  const open = new OpenSegments({
    kindOf: new Map([
      ['trades', 'trades'],
      ['quotes', 'bookTicker'],
    ]),
    ...{ flushIntervalMs: 1000, sealBytes: 1 << 30, maxBytes: 1 << 30 },
  })
  const head = { incarnation: 1, nextOffset: 0, leaderEpoch: -1 }
  open.assign([
    { ...PARTITION, head },
    { ...PARTITION, topic: 'quotes', head },
  ])
  open.accept(fetched('trades', 0, 0, days), 0, 0)
  assert.deepEqual(
    open.positions().map(({ topic }) => topic),
    ['quotes'],
    'the ninth day waits',
  )
  assert.equal(open.take(0)?.nextOffset, 8)
  open.accept(fetched('quotes', 0, 0, [record(bookTickerValue())]), 500, 0)
  assert.equal(open.take(1499), null)
  assert.equal(open.dueInMs(1400), 100)
  assert.equal(open.take(1500)?.topic, 'quotes')
})

test('a store that is slower than the interval leaves out no partition: the oldest segment is written first', () => {
  const open = new OpenSegments({
    kindOf: new Map([['trades', 'trades']]),
    ...{ flushIntervalMs: 100, sealBytes: 1 << 30, maxBytes: 1 << 30 },
  })
  const head = { incarnation: 1, nextOffset: 0, leaderEpoch: -1 }
  open.assign([0, 1].map((partition) => ({ ...PARTITION, partition, head })))
  let [next, nowMs] = [0, 0]
  const busy = () => {
    const messages = Array.from({ length: 3000 }, (_, i) => trade(next + i, 0))
    assert.equal(open.accept(fetched('trades', 0, next, messages), nowMs, MIDNIGHT_MS), null)
    next += messages.length
  }
  busy()
  open.accept(fetched('trades', 1, 0, [trade(1, 0)]), nowMs + 1, MIDNIGHT_MS)
  const written = [1, 2, 3].map(() => {
    nowMs += 1000
    const segment = open.take(nowMs) ?? assert.fail('nothing is due')
    busy()
    open.committed(segment)
    return segment.partition
  })
  assert.deepEqual(written, [0, 1, 0])
})

test('after a sweep the archive has the published files and what is not published, and no orphan', async (context) => {
  const all = await parts(context)
  await archive(all, [trade(1, 0), record(Buffer.from('no JSON'))])
  const lost = await segmentOf(all, [trade(2, 0)])
  // An owner that was killed after its file and before its record.
  const orphan = all.chain.segmentKey(1, lost.firstOffset, lost.id, 'raw_trades')
  await all.store.putFile(orphan, (path) => writeFile(path, ''))
  assert.equal(
    await sweep(all.store, await markForSweep(all.store), all.clock),
    0,
    'an orphan at the head may get its record',
  )
  await archive(all, [trade(2, 0)])
  await compact(all, () => true)
  await archive(all, [trade(3, 1), trade(1, DAY_MS)])
  await compact(all, (date) => date === '2024-08-09')
  assert.equal((await all.store.list('raw_trades')).length, 2, 'a reader may still read the replaced file')
  await sweep(all.store, await markForSweep(all.store), all.clock)
  const left = await all.store.list('raw_trades')
  const { files } = (await newestDayList(all.store, 'raw_trades', '2024-08-09')) ?? { files: [] }
  assert.deepEqual(
    left,
    files.map(({ key }) => key),
  )
  const segments = (await all.store.list('_segments')).map((key) => key.slice(key.indexOf(TOPIC_ID)))
  assert.deepEqual(
    segments.map((key) => key.replace(/-[0-9a-f-]{36}-/, ' ').replace(/^.*\//, '')),
    ['00000000000000000000 dead_letters.parquet', '00000000000000000003 raw_trades.parquet'],
    'the text rows, and the segment with a day that is not over',
  )
  assert.deepEqual(await all.chain.foldedTo(), { incarnation: 1, offset: 3 })
  // A process that starts later reads the rest only.
  assert.deepEqual(await compact(all, () => true), [
    { table: 'raw_trades', date: '2024-08-10', number: 1, rows: 1, duplicates: 0, conflicts: null },
  ])
})

test('a sweep keeps what was added between its two halves', async (context) => {
  const all = await parts(context)
  await archive(all, [trade(1, 0)])
  await compact(all, () => true)
  const marks = await markForSweep(all.store)
  await archive(all, [trade(2, 0)])
  // Another process had written this file when the marks were made, and lists it now.
  const [file = ''] = await all.store.list('raw_trades')
  const { days, chains } = marks
  const unlisted = days.map((day) => ({ ...day, unlisted: [file] }))
  assert.equal(await sweep(all.store, { chains, days: unlisted }, all.clock), 1, 'the published segment')
  assert.deepEqual(await all.store.list('raw_trades'), [file])
  assert.equal((await all.store.list('_segments')).length, 1)
})

test('rows that contradict a published one are kept in a file that the list names', async (context) => {
  const all = await parts(context)
  await archive(all, [trade(1, 0), trade(2, 0)])
  await compact(all, () => true)
  await archive(all, [trade(1, 0, { p: '2' }), trade(2, 0, { source: 'backfill' })])
  const [published] = await compact(all, () => false)
  assert.deepEqual([published?.duplicates, published?.conflicts?.rows], [2, 1])
  const list = await newestDayList(all.store, 'raw_trades', '2024-08-09')
  const keys = list?.conflicts.map(({ key }) => key) ?? []
  const rows = await all.duckDb.rows<object>(
    `SELECT trade_id, price::VARCHAR FROM ${await readOf(all, keys)}`,
  )
  assert.deepEqual(
    rows.map((row) => Object.values(row)),
    [[1n, '2.00000000']],
  )
})

test('a compaction that stood still for longer than the grace period lists no removed file', async (context) => {
  const all = await parts(context)
  await archive(all, [trade(1, 0)])
  await compact(all, () => true)
  await archive(all, [trade(2, 0)])
  let removed = 0
  const merge: typeof all.merge = async (day) => {
    const merged = await all.merge(day)
    // Its files are there, and its list is not: another process sweeps.
    removed = await sweep(all.store, await markForSweep(all.store), all.clock)
    return merged
  }
  assert.deepEqual(await compact({ ...all, merge }, () => true), [], 'its number is taken')
  assert.ok(removed > 0)
  assert.equal((await compact(all, () => true))[0]?.rows, 2)
  const list = await newestDayList(all.store, 'raw_trades', '2024-08-09')
  for (const { key } of list?.files ?? []) assert.ok((await all.store.read(key)) !== null)
})
