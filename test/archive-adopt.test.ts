import assert from 'node:assert/strict'
import { after, test } from 'node:test'
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
