import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compact } from '../src/archive/compaction.ts'
import { duckDbCompaction } from '../src/archive/day-merge.ts'
import { type DayList, newestDayList } from '../src/foundation/archive/day-list.ts'
import type { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { type ArchiveParts, createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { bookTickerValue, gapRow, record, tradeValue } from './support/records.ts'

const DATE = '2024-08-09'
const NEXT = '2024-08-10'
const DAY_MS = 86_400_000

function trade(id: number, fields: Readonly<Record<string, unknown>> = {}): FetchedMessage {
  const at = MIDNIGHT_MS + id * 1000
  return record(tradeValue({ t: id, T: at, E: at, ...fields }), null, { schema: 'trade/1' })
}

function ledger(fields: Parameters<typeof gapRow>[0]): FetchedMessage {
  const gap = gapRow({ detected_at: MIDNIGHT_MS, updated_at: MIDNIGHT_MS, ...fields })
  return record(Buffer.from(JSON.stringify(gap)), null, { schema: 'gap/1' })
}

async function list({ store }: ArchiveParts, table = 'raw_trades', date = DATE): Promise<DayList> {
  return (await newestDayList(store, table, date)) ?? assert.fail('not published')
}

test('the list of a day says what is missing and why, and whether that explains all', async () => {
  await using all = await createArchive()
  await all.add(
    'trades',
    [1, 2, 3, 7, 8].map((id) => trade(id)),
  )
  await all.publish()
  assert.deepEqual((await list(all)).symbols, {
    BTCUSDT: [{ epoch: 0, rows: 5, firstId: 1, lastId: 8, missingIds: 3 }],
  })
  assert.equal((await list(all)).verdict, 'unexplained')
  await all.add('gaps', [
    ledger({ from_id: 4, to_id: 6, status: 'unrecoverable', reason: 'the exchange has no such ids' }),
  ])
  await all.publish()
  const { number, verdict, missing, files } = await list(all)
  assert.deepEqual(
    [number, verdict, missing.map(({ from_id, to_id, status, reason }) => [from_id, to_id, status, reason])],
    [2, 'incomplete', [[4, 6, 'unrecoverable', 'the exchange has no such ids']]],
  )
  await all.publish()
  assert.equal((await list(all)).number, 2, 'nothing has changed')
  assert.deepEqual(
    await all.store.list('raw_trades'),
    files.map(({ key }) => key),
    'the files stay',
  )
})

test('a revision that another process folds while a day is merged is in the list of the day', async () => {
  await using all = await createArchive()
  await all.add(
    'trades',
    [1, 4].map((id) => trade(id)),
  )
  const ports = duckDbCompaction(all.store, all.duckDb, systemClock())
  const merge: typeof ports.merge = async (day) => {
    const merged = await ports.merge(day)
    await all.add('gaps', [ledger({ from_id: 2, to_id: 3, status: 'unrecoverable', reason: 'gone' })])
    await all.publish(() => false)
    return merged
  }
  await compact({ ...ports, merge }, () => true)
  const { verdict, missing } = await list(all)
  assert.deepEqual([verdict, missing.map(({ from_id }) => from_id)], ['incomplete', [2]])
})

test('a backfilled day becomes complete', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1), trade(4)])
  await all.add('gaps', [ledger({ from_id: 2, to_id: 3 })])
  await all.publish()
  assert.equal((await list(all)).verdict, 'incomplete')
  await all.add('trades', [trade(2), trade(3)])
  await all.add('gaps', [ledger({ from_id: 2, to_id: 3, status: 'filled' })])
  await all.publish()
  const { verdict, missing, symbols } = await list(all)
  assert.deepEqual([verdict, missing, symbols['BTCUSDT']?.[0]?.missingIds], ['complete', [], 0])
})

test('ids that restart are no missing ids, and a window of quotes is in the list of its day', async () => {
  await using all = await createArchive()
  const epoch = (one: FetchedMessage) => record(one.value, null, { schema: 'trade/1', epoch: '1' })
  await all.add('trades', [
    trade(1000),
    trade(1001),
    epoch(trade(1, { T: MIDNIGHT_MS + 2e6 })),
    epoch(trade(2, { T: MIDNIGHT_MS + 3e6 })),
  ])
  const at = MIDNIGHT_MS + 500
  await all.add('bookTicker', [
    record(bookTickerValue({ ingestion_timestamp: at, ingestion_timestamp_us: at * 1000 })),
  ])
  const window = {
    event_type: 'bookTicker',
    from_id: null,
    to_id: null,
    cause: 'restart',
    status: 'unrecoverable',
  } as const
  await all.add('gaps', [
    ledger({ ...window, from_time: MIDNIGHT_MS + 1000, to_time: MIDNIGHT_MS + 2000, gap_id: 'here' }),
    ledger({
      ...window,
      from_time: MIDNIGHT_MS - 2000,
      to_time: MIDNIGHT_MS - 1000,
      gap_id: 'the day before',
    }),
  ])
  await all.publish()
  const trades = await list(all)
  assert.deepEqual(
    [trades.verdict, trades.symbols['BTCUSDT']],
    [
      'complete',
      [
        { epoch: 0, rows: 2, firstId: 1000, lastId: 1001, missingIds: 0 },
        { epoch: 1, rows: 2, firstId: 1, lastId: 2, missingIds: 0 },
      ],
    ],
  )
  const quotes = await list(all, 'book_ticker')
  assert.deepEqual(
    [quotes.verdict, quotes.missing.map(({ gap_id }) => gap_id), quotes.symbols['BTCUSDT']?.[0]?.missingIds],
    ['incomplete', ['here'], null],
  )
})

test('on a day on which ids restart, the ids of each sequence are compared with its gaps', async () => {
  await using all = await createArchive()
  const restarted = (id: number) =>
    record(trade(id, { T: MIDNIGHT_MS + 3_600_000 + id }).value, null, { schema: 'trade/1', epoch: '1' })
  await all.add('trades', [trade(1000), trade(1003), restarted(1), restarted(4)])
  await all.add('gaps', [
    ledger({ from_id: 1001, to_id: 1002, status: 'unrecoverable' }),
    ledger({ epoch: 1, from_id: 2, to_id: 3 }),
  ])
  await all.publish()
  assert.equal((await list(all)).verdict, 'incomplete')
  await all.add('trades', [restarted(7)])
  await all.add('gaps', [ledger({ from_id: 1005, to_id: 2000, status: 'unrecoverable' })])
  await all.publish()
  assert.equal((await list(all)).verdict, 'unexplained', 'ids of another sequence explain nothing')
})

test('an id with two times hides no missing one, and an id in two rows of the ledger explains one', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1), trade(2), trade(2, { T: MIDNIGHT_MS + 2500 }), trade(4), trade(6)])
  await all.publish()
  const figures = [{ epoch: 0, rows: 5, firstId: 1, lastId: 6, missingIds: 2 }]
  assert.deepEqual((await list(all)).symbols['BTCUSDT'], figures)
  await all.add('gaps', [
    ledger({ from_id: 3, to_id: 3, gap_id: 'one' }),
    ledger({ from_id: 3, to_id: 3, gap_id: 'two' }),
  ])
  await all.publish()
  assert.equal((await list(all)).verdict, 'unexplained')
})

test('a revision changes the lists of its days whenever it was made, also of those it touched before', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1), trade(2, { T: MIDNIGHT_MS + DAY_MS })])
  const window = { from_id: null, to_id: null, gap_id: 'window', status: 'unrecoverable' } as const
  const from_time = MIDNIGHT_MS + 1000
  await all.add('gaps', [ledger({ ...window, from_time, to_time: from_time + DAY_MS, revision: 2 })])
  await all.publish()
  const verdicts = async () =>
    [await list(all), await list(all, 'raw_trades', NEXT)].map(({ number, verdict }) => [number, verdict])
  assert.deepEqual(await verdicts(), [
    [1, 'incomplete'],
    [1, 'incomplete'],
  ])
  await all.add('gaps', [ledger({ ...window, from_time, to_time: from_time + 1, revision: 3 })])
  // The list of a day is damaged: the revision is not forgotten.
  const key = `_days/raw_trades/${NEXT}/00000001.json`
  const bytes = (await all.store.read(key)) ?? assert.fail('no list')
  await all.store.remove(key)
  await all.store.create(key, Buffer.from('{'))
  await assert.rejects(all.publish())
  await all.store.remove(key)
  await all.store.create(key, bytes)
  await all.publish()
  assert.deepEqual(await verdicts(), [
    [2, 'incomplete'],
    [2, 'complete'],
  ])
})
