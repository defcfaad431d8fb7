import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type DayList, newestDayList } from '../src/foundation/archive/day-list.ts'
import type { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { type ArchiveParts, createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { bookTickerValue, gapRow, record, tradeValue } from './support/records.ts'

const DATE = '2024-08-09'

function trade(id: number, fields: Readonly<Record<string, unknown>> = {}): FetchedMessage {
  const at = MIDNIGHT_MS + id * 1000
  return record(tradeValue({ t: id, T: at, E: at, ...fields }), null, { schema: 'trade/1' })
}

function ledger(fields: Parameters<typeof gapRow>[0]): FetchedMessage {
  const gap = gapRow({ detected_at: MIDNIGHT_MS, updated_at: Date.now(), ...fields })
  return record(Buffer.from(JSON.stringify(gap)), null, { schema: 'gap/1' })
}

async function list({ store }: ArchiveParts, table = 'raw_trades'): Promise<DayList> {
  return (await newestDayList(store, table, DATE)) ?? assert.fail('not published')
}

test('the list of a day says what is missing and why, and whether that explains all', async () => {
  await using all = await createArchive()
  await all.add(
    'trades',
    [1, 2, 3, 7, 8].map((id) => trade(id)),
  )
  await all.publish()
  assert.deepEqual((await list(all)).symbols, {
    BTCUSDT: { rows: 5, firstId: 1, lastId: 8, missingIds: 3 },
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
  assert.deepEqual([verdict, missing, symbols['BTCUSDT']?.missingIds], ['complete', [], 0])
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
    ['complete', { rows: 4, firstId: 1000, lastId: 2, missingIds: 0 }],
  )
  const quotes = await list(all, 'book_ticker')
  assert.deepEqual(
    [quotes.verdict, quotes.missing.map(({ gap_id }) => gap_id), quotes.symbols['BTCUSDT']?.missingIds],
    ['incomplete', ['here'], null],
  )
})
