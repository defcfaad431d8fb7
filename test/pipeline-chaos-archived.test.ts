import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { checkArchive } from '../chaos/archived.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { diffOf, type Pair } from './support/book-rows.ts'
import { openTestDatabase } from './support/database.ts'
import { pythonWithReaders } from './support/python-readers.ts'
import { storeEvents } from './support/recorded-books.ts'
import { eventValue, record, tradeValue } from './support/records.ts'

const READERS = 3
const SEGMENTS = '_segments/**/*-raw_trades.parquet'

test('three readers find a row that the archive lacks, has with another digit, or has too often', async (t) => {
  const python = await pythonWithReaders()
  if (typeof python !== 'string') return t.skip(python.skip)
  await using server = await openTestDatabase('migrated')
  const { database } = server
  await using archive = await createArchive()
  const trades = [1, 2, 3].map((id) =>
    record(tradeValue({ t: id, T: MIDNIGHT_MS + id, E: MIDNIGHT_MS, p: '0.00000001', q: '123456.7' })),
  )
  await archive.add('trades', trades)
  // Kafka may have a message twice: the first row counts, as in the tables.
  await archive.add('trades', trades.slice(1))
  const rows = await archive.duckDb.rows<Record<string, unknown>>(
    `SELECT DISTINCT ON (trade_id) epoch_us(trade_time)::VARCHAR AS traded, epoch_us(event_time)::VARCHAR AS event,
       epoch_us(ingestion_timestamp)::VARCHAR AS received, symbol, epoch::VARCHAR AS epoch, trade_id::VARCHAR AS id,
       price::VARCHAR AS price, quantity::VARCHAR AS quantity, is_buyer_maker AS maker, source
     FROM read_parquet('${join(archive.folder, SEGMENTS)}') ORDER BY trade_id, _offset`,
  )
  const at = (parameter: number) => `to_timestamp(0) + $${parameter}::bigint * interval '1 microsecond'`
  for (const one of rows)
    await database.query(
      `INSERT INTO trades (event_type, trade_time, event_time, ingestion_timestamp, symbol, epoch, trade_id, price, quantity, is_buyer_maker, source)
       VALUES ('trade', ${at(1)}, ${at(2)}, ${at(3)}, $4, $5, $6, $7, $8, $9, $10)`,
      Object.values(one),
    )
  const check = async () => (await checkArchive(archive.folder, server.url)).violations
  assert.deepEqual(await check(), [])

  await database.query('UPDATE trades SET quantity = quantity + 0.00000001 WHERE trade_id = 2')
  const changed = await check()
  assert.equal(
    changed.filter((one) => /1 rows too many, such as .*123456\.70000000/.test(one)).length,
    READERS,
  )
  assert.equal(
    changed.filter((one) => /1 rows missing, such as .*123456\.70000001/.test(one)).length,
    READERS,
  )
  await database.query('DELETE FROM trades WHERE trade_id = 2')
  assert.equal((await check()).filter((one) => /1 rows too many/.test(one)).length, READERS)
  await database.query(
    "INSERT INTO book_ticker VALUES (now(), 'BTCUSDT', 1, 1, 1, 1, 1), (now(), 'BTCUSDT', 2, 1, 1, 1, 1)",
  )
  assert.equal(
    (await check()).filter((one) => /book_ticker.*no files|book_ticker.*2 rows/.test(one)).length,
    READERS,
  )
})

test('three readers find a level that the archive lacks, has with another digit, or has too often', async (t) => {
  const python = await pythonWithReaders()
  if (typeof python !== 'string') return t.skip(python.skip)
  await using server = await openTestDatabase('migrated')
  const { database } = server
  await using archive = await createArchive()
  const received = { ingestion_timestamp: MIDNIGHT_MS, ingestion_timestamp_us: MIDNIGHT_MS * 1000 + 700 }
  const diff = (quantity: string, levels: readonly Pair[] = [['99', '123456.7']]) =>
    eventValue('depth', {
      E: MIDNIGHT_MS,
      U: 1,
      u: 5,
      b: [['99.5', quantity], ...levels],
      a: [],
      ...received,
    })
  const others = [
    eventValue('depth', { E: MIDNIGHT_MS + 1, U: 6, u: 7, b: [], a: [], ...received }),
    eventValue('depthSnapshot', { lastUpdateId: 5, bids: [['99.5', '1']], asks: [], ...received }),
  ]
  const messages = [diff('0.00000001'), ...others].map((value) => record(value))
  await archive.add('depth', messages)
  // Kafka may have messages twice: the first event counts, as in the tables.
  await archive.add('depth', messages)
  const checkWith = async (...values: readonly Buffer[]) => {
    await database.query('TRUNCATE depth_updates, depth_snapshots')
    await storeEvents(
      database,
      values.map((value) => ({ value, row: diffOf(1, 5, [], []) })),
    )
    return (await checkArchive(archive.folder, server.url)).violations
  }
  assert.deepEqual(await checkWith(diff('0.00000001'), ...others), [])

  const found = async (pattern: RegExp, ...values: readonly Buffer[]) =>
    assert.equal((await checkWith(...values)).filter((one) => pattern.test(one)).length, READERS)
  await found(
    /, depth, .*1 rows missing, such as .* bid 1 99\.50000000 0\.00000002/,
    diff('0.00000002'),
    ...others,
  )
  await found(/, depth, .*1 rows too many, such as .* bid 2 99\.00000000 /, diff('0.00000001', []), ...others)
  await found(/depth_snapshots, .*1 rows too many/, diff('0.00000001'), ...others.slice(0, 1))
})
