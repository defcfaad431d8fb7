import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { readSeries, readStored } from '../src/tools/dashboard/stored.ts'
import { retryDeadLetters } from '../src/tools/dead-letters/retry.ts'
import { countByReason, listDeadLetters } from '../src/tools/dead-letters/stored-dead-letters.ts'
import { planRetry, readGaps } from '../src/tools/gaps/stored-gaps.ts'
import {
  type AuditedMarket,
  createAuditedMarket,
  deadLetterSql,
  gapSql,
  outageSql,
} from './support/audited-market.ts'
import { databaseKinds } from './support/database.ts'
import { startTapeline } from './support/processes.ts'
import { recordingSql } from './support/recordings.ts'

/* Other tests of SQL use one database; here the same statements run on both. */

const TRADES = "symbol = 'BTCUSDT' AND event_type = 'trade'"
const STREAM = { symbol: 'BTCUSDT', eventType: 'trade', epoch: 0 }
const START = JSON.stringify({ ...STREAM, id: 1010, timeMs: 1_767_225_600_000 })

const TOPICS = { trades: 't', bookTicker: 'q', depth: 'o', gaps: 'g', checkpoints: 'c', deadLetters: 'd' }

/** Changes with findings of every check of verify. */
const DAMAGE: readonly (readonly string[])[] = [
  [],
  [`DELETE FROM trades WHERE ${TRADES} AND trade_id IN (1005, 1006, 1050)`, gapSql('filled', 1005, 1006)],
  [gapSql('open', 1000, 1008), gapSql('unrecoverable', 1040, 1060), gapSql('filled', 1200, 1300)],
  [
    `INSERT INTO trades SELECT trade_time + interval '1 hour', event_time, symbol, event_type, epoch, trade_id, price, quantity, first_trade_id, last_trade_id, is_buyer_maker, ingestion_timestamp, source FROM trades WHERE ${TRADES} AND trade_id = 1020`,
  ],
  [`UPDATE trades SET quantity = quantity * 2 WHERE ${TRADES} AND trade_id = 1030`],
  [`UPDATE trades SET epoch = 1, trade_id = trade_id - 1000 WHERE ${TRADES} AND trade_id >= 1050`],
  ["DELETE FROM book_ticker WHERE symbol = 'ETHUSDT'", recordingSql('2026-01-01T00:00:00Z')],
  [
    outageSql('2026-01-02T10:00:00Z', '2026-01-02T16:00:07Z'),
    outageSql('2026-01-02T12:00:00Z', '2026-01-02T13:00:00Z'),
  ],
  [`INSERT INTO meta (key, value) VALUES ('start:BTCUSDT trade', '${START}')`],
  [
    deadLetterSql(1, '{"e":"trade","s":"BTCUSDT","t":1005}'),
    `DELETE FROM trades WHERE ${TRADES} AND trade_id = 1005`,
  ],
  [
    "SELECT drop_chunks(name::regclass, timestamptz '2026-01-03') FROM unnest('{trades,book_ticker}'::text[]) AS name",
  ],
]

/** Everything that commands read from this database, and what they change. */
async function results(market: AuditedMarket): Promise<Record<string, unknown>> {
  const { database, url } = market
  const audits: unknown[] = []
  for (const changes of DAMAGE) {
    const { takenAt: _, timings: __, ...report } = await market.auditAfter(changes)
    audits.push(report)
  }
  for (const sql of [
    gapSql('open', 5, 9),
    gapSql('unrecoverable', 20, 21),
    outageSql('2026-01-02T10:00:00Z', '2026-01-02T10:00:07Z'),
    deadLetterSql(1, '{"e":"trade"'),
    deadLetterSql(2, 'x'),
    "UPDATE dead_letters SET failed_at = '2026-01-06'",
  ])
    await database.query(sql)
  const folder = mkdtempSync(join(tmpdir(), 'export-'))
  await using exporting = startTapeline(
    ['export', 'BTCUSDT', '--day', '2026-01-02', '--format', 'csv', '--no-verify', '--out', folder],
    { env: { DATABASE_URL: url } },
  )
  await exporting.assertExit(0)
  const exported = readdirSync(folder)
    .filter((name) => name.endsWith('.csv'))
    .map((name) => readFileSync(join(folder, name), 'utf8'))
  const { rows: candles } = await database.query(
    "SELECT * FROM candles('BTCUSDT', '1 day', '2026-01-01', '2026-01-05') ORDER BY bucket",
  )
  const query = 'SELECT * FROM raw_trades ORDER BY symbol, trade_id LIMIT 20'
  await using command = startTapeline(['sql', query], { env: { DATABASE_URL: url } })
  await command.assertExit(0)
  const retried: unknown[] = []
  await retryDeadLetters(database, {}, { topics: TOPICS, dryRun: true }, (key, outcome) =>
    retried.push([key.offset, outcome]),
  )
  return {
    audits,
    exported,
    candles,
    printed: command.output(),
    stored: await readStored(database, ['BTCUSDT', 'NOSUCH']),
    series: await readSeries(database, 'BTCUSDT'),
    letters: await listDeadLetters(database, {}, 10, 100),
    reasons: await countByReason(database, {}),
    gaps: await readGaps(database, { symbol: null, fromMs: null, toMs: null }),
    planned: await planRetry(database, { symbol: null, fromMs: null, toMs: null }, 0),
    retried,
  }
}

const [native] = databaseKinds()

test('the embedded database gives the results of the native one', {
  skip: native?.skip ?? false,
}, async () => {
  await using expected = await createAuditedMarket('native')
  await using embedded = await createAuditedMarket('embedded')
  const [one, other] = [await results(expected), await results(embedded)]
  for (const name of Object.keys(one)) assert.deepEqual(other[name], one[name], name)
})
