import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { packedMaxBytes, packLevels } from '../src/foundation/market/packed-levels.ts'
import { createArchive } from './support/archive-parts.ts'
import { createAuditedMarket } from './support/audited-market.ts'
import { startTapeline } from './support/processes.ts'
import { record, tradeValue } from './support/records.ts'

const DAY = '2026-01-01'

const market = await createAuditedMarket('embedded')
after(() => market.drop())

/** A trade of the day that the tables have, with another receipt. */
function archived(id: number) {
  const T = Date.parse(DAY) + Math.floor((id - 1000) / 2) * 2 * 3_600_000
  return record(
    tradeValue({ t: id, T, E: T + 1, ingestion_timestamp: T + 77, ingestion_timestamp_us: (T + 77) * 1000 }),
  )
}

test('adopt leaves rows of segments as they are, and a day that is not published to the service', async () => {
  await using archive = await createArchive()
  const adopt = async (exitCode: number) => {
    const env = { DATABASE_URL: market.url, ARCHIVE_URL: archive.folder }
    await using adopting = startTapeline(['archive', 'adopt', '--day', DAY], { env })
    await adopting.assertExit(exitCode, 60_000)
    return adopting.output()
  }
  await archive.add('trades', [archived(1000)])
  assert.match(await adopt(1), /raw_trades 2026-01-01 is archived, and not published yet/)
  await archive.publish()
  await archive.add('trades', [archived(1001)])
  assert.match(await adopt(0), /raw_trades 2026-01-01: 48 rows in the database, 46 added \(list 2\)/)
  await archive.publish()
  const reader = await archive.openReader()
  const [counts] = await reader.read(async (snapshot) =>
    reader.duckDb.rows<object>(
      `SELECT count(*)::INTEGER AS rows, count(*) FILTER (ingestion_timestamp = trade_time + INTERVAL 77 MILLISECOND)::INTEGER AS archived
       FROM (${await snapshot.relation('raw_trades')})`,
    ),
  )
  assert.deepEqual(counts, { rows: 48, archived: 2 })
  assert.match(await adopt(0), /48 rows in the database, the archive has all of them/)
})

test('adopt refuses a database with another unit of times', async () => {
  await using archive = await createArchive()
  await market.database.query(
    `INSERT INTO meta (key, value) VALUES ('source', 'simulated'), ('time_unit', 'microsecond')`,
  )
  const env = { DATABASE_URL: market.url, ARCHIVE_URL: archive.folder }
  await using adopting = startTapeline(['archive', 'adopt', '--day', DAY], { env })
  await adopting.assertExit(1)
  assert.match(adopting.output(), /hold times in milliseconds, not in microseconds/)
})

function packed(levels: string): Buffer {
  const text = Buffer.from(levels)
  const out = Buffer.alloc(packedMaxBytes(10))
  return out.subarray(0, packLevels(text, 0, text.length, out, 0))
}

test('adopt adds the levels of order books, and no derived ones', async () => {
  await using archive = await createArchive()
  await using books = await createAuditedMarket('embedded')
  const levels = packed('["61837.63","0.00000001"],["61837.5","999999"]')
  const none = Buffer.alloc(0)
  for (const [U, u, bids, asks] of [
    [1, 3, levels, levels],
    [4, 4, none, none],
  ])
    await books.database.query(
      `INSERT INTO depth_updates (event_time, symbol, first_update_id, last_update_id, bids, asks, ingestion_timestamp)
       VALUES ($1::timestamptz, 'BTCUSDT', $2, $3, $4, $5, $1::timestamptz)`,
      [`${DAY}T12:00:00Z`, U, u, bids, asks],
    )
  for (const derived of [false, true])
    await books.database.query(
      `INSERT INTO depth_snapshots (ingestion_timestamp, symbol, last_update_id, kind, level_limit, bids, asks, event_time,
         anchor_update_id, anchor_timestamp)
       VALUES ($1::timestamptz, 'BTCUSDT', 4, $2, $3, $4, $5, $6::timestamptz, $7, $6::timestamptz)`,
      [
        ...[`${DAY}T12:00:01Z`, derived ? 'derived' : 'rest', derived ? null : 500, levels, none],
        ...[derived ? `${DAY}T12:00:00Z` : null, derived ? 3 : null],
      ],
    )
  const env = { DATABASE_URL: books.url, ARCHIVE_URL: archive.folder }
  for (const expected of [
    /depth 2026-01-01: 5 rows .*5 added/,
    /depth 2026-01-01: 5 rows .* has all of them/,
  ]) {
    await using adopting = startTapeline(['archive', 'adopt', '--day', DAY], { env })
    await adopting.assertExit(0, 60_000)
    assert.match(adopting.output(), expected)
  }
  const reader = await archive.openReader()
  const [depth, snapshots] = await reader.read(async (snapshot) =>
    Promise.all(
      ['depth', 'depth_snapshots'].map(async (table) => {
        const from = await snapshot.relation(table)
        return reader.duckDb.rows<object>(
          `SELECT last_update_id::INTEGER, side, level, price::VARCHAR, quantity::VARCHAR FROM (${from}) ORDER BY ALL`,
        )
      }),
    ),
  )
  const lines = (rows: readonly object[] | undefined) => rows?.map((row) => Object.values(row).join(' '))
  assert.deepEqual(lines(depth), [
    ...['3 ask 1 61837.63000000 0.00000001', '3 ask 2 61837.50000000 999999.00000000'],
    ...['3 bid 1 61837.63000000 0.00000001', '3 bid 2 61837.50000000 999999.00000000', '4    '],
  ])
  assert.deepEqual(lines(snapshots), [
    ...['4 bid 1 61837.63000000 0.00000001', '4 bid 2 61837.50000000 999999.00000000'],
  ])
})
