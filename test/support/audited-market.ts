import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import type { Queryable } from '../../src/foundation/store/database.ts'
import { archivedRows } from '../../src/tools/verify/archive-depth.ts'
import { archiveTables } from '../../src/tools/verify/archive-tables.ts'
import type { Report } from '../../src/tools/verify/report-types.ts'
import { EVERYTHING } from '../../src/tools/verify/scope.ts'
import { type AuditOptions, audit } from '../../src/tools/verify/verify.ts'
import { archiveOf } from './archived-tables.ts'
import { type DatabaseKind, openTestDatabase } from './database.ts'

export const AUDIT_OPTIONS: AuditOptions = {
  scope: EVERYTHING,
  limit: 5,
  readEnds: async () => ({ notReached: 'not asked by this test' }),
}

/**
 * Two symbols over four days: trades 1000..1099, two per hour with an aggTrade (500..549) for each
 * pair; quotes 7000, 7003, … Every event is stored once.
 */
const MARKET = [
  `INSERT INTO trades (trade_time, event_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
   SELECT at, at + interval '1 millisecond', symbol, 'trade', id, 60000.5 + pair, 0.00000001 * (1 + id % 7), pair % 2 = 0, at + interval '5 milliseconds'
   FROM generate_series(1000, 1099) AS id, unnest('{BTCUSDT,ETHUSDT}'::text[]) AS symbol,
     LATERAL (SELECT (id - 1000) / 2 AS pair) AS paired, LATERAL (SELECT timestamptz '2026-01-01' + pair * interval '2 hours' AS at) AS timed`,
  `INSERT INTO trades (trade_time, event_time, symbol, event_type, trade_id, price, quantity, first_trade_id, last_trade_id, is_buyer_maker, ingestion_timestamp)
   SELECT trade_time, event_time, symbol, 'aggTrade', 500 + (trade_id - 1000) / 2, price, sum(quantity), min(trade_id), max(trade_id), is_buyer_maker, min(ingestion_timestamp)
   FROM trades GROUP BY trade_time, event_time, symbol, (trade_id - 1000) / 2, price, is_buyer_maker`,
  `INSERT INTO book_ticker SELECT timestamptz '2026-01-01' + n * interval '1 hour', symbol, 7000 + n * 3, 60000, 1, 60000.01, 2
   FROM generate_series(0, 89) AS n, unnest('{BTCUSDT,ETHUSDT}'::text[]) AS symbol`,
]

class Undo extends Error {}

export type AuditedMarket = Awaited<ReturnType<typeof createAuditedMarket>>

/** @param rows statements that insert what is audited */
export async function createAuditedMarket(kind?: DatabaseKind, rows: readonly string[] = MARKET) {
  const server = await openTestDatabase('migrated', kind)
  const { database } = server
  for (const statement of rows) await database.query(statement)
  const undone = async (
    changes: readonly string[],
    work: (connection: Queryable) => Promise<Report>,
  ): Promise<Report> => {
    let found: Report | undefined
    await database
      .transaction(async (connection) => {
        for (const change of changes) await connection.query(change)
        found = await work(connection)
        throw new Undo()
      })
      .catch((error: unknown) => {
        if (!(error instanceof Undo)) throw error
      })
    return found ?? assert.fail('verify returned nothing')
  }
  return {
    ...server,
    drop: async () => server[Symbol.asyncDispose](),
    /** The same of the tables alone, for changes that no archive can have. */
    auditTablesAfter: (
      changes: readonly string[],
      given: (connection: Queryable) => Partial<AuditOptions> = () => ({}),
    ) => undone(changes, (connection) => audit(connection, { ...AUDIT_OPTIONS, ...given(connection) })),
    /**
     * Returns the result of verify after changes, which are rolled back. An archive with the same rows
     * must have the same result.
     */
    auditAfter: (changes: readonly string[], given: Partial<AuditOptions> = {}): Promise<Report> =>
      undone(changes, async (connection) => {
        const options = { ...AUDIT_OPTIONS, ...given }
        const found = await audit(connection, options)
        await requireSameOfArchive(connection, found, options)
        return found
      }),
  }
}

/** Facts that only the consumer writes: what retention has dropped, and where it began. */
const OF_TABLES = `SELECT 1 FROM meta WHERE starts_with(key, 'retention:') OR starts_with(key, 'start:') LIMIT 1`

async function requireSameOfArchive(
  connection: Queryable,
  expected: Report,
  options: AuditOptions,
): Promise<void> {
  if ((await connection.query(OF_TABLES)).rows.length > 0) return
  await using archive = await archiveOf(connection)
  const reader = await archive.openReader()
  const found = await reader.read(async (snapshot) =>
    audit(await archiveTables(reader, snapshot, options.scope), {
      ...options,
      depthRows: archivedRows(reader.duckDb, snapshot),
    }),
  )
  const same = { takenAt: '', watermark: null, timings: null }
  assert.deepEqual({ ...found, ...same }, { ...expected, ...same }, 'the archive gives another result')
}

/** Gives a suite a market, from before its first test until after its last. */
export function marketOfSuite(
  rows?: readonly string[],
): Pick<AuditedMarket, 'database' | 'auditAfter' | 'auditTablesAfter'> {
  let market: AuditedMarket | undefined
  const opened = () => market ?? assert.fail('The suite has no market yet')
  before(async () => {
    market = await createAuditedMarket(undefined, rows)
  })
  after(() => market?.[Symbol.asyncDispose]())
  return {
    get database() {
      return opened().database
    },
    auditAfter: (...args) => opened().auditAfter(...args),
    auditTablesAfter: (...args) => opened().auditTablesAfter(...args),
  }
}

/** SQL that inserts a row into the ledger. */
export function gapSql(
  status: 'open' | 'filled' | 'unrecoverable',
  from: number,
  to: number,
  options: { symbol?: string; eventType?: string; epoch?: number } = {},
): string {
  const { symbol = 'BTCUSDT', eventType = 'trade', epoch = 0 } = options
  return `INSERT INTO gaps (gap_id, revision, symbol, event_type, epoch, from_id, to_id, cause, status, detected_at, updated_at)
    VALUES ('${symbol}/${eventType}/${epoch}/${from}', 1, '${symbol}', '${eventType}', ${epoch}, ${from}, ${to}, 'reconnect', '${status}',
      '2026-01-05', '2026-01-05')`
}

/** SQL that inserts a window without quotes into the ledger. */
export function outageSql(from: string, to: string, cause = 'restart'): string {
  return `INSERT INTO gaps (gap_id, revision, symbol, event_type, from_time, to_time, cause, status, detected_at, updated_at)
    VALUES ('BTCUSDT/bookTicker/0/${from}', 1, 'BTCUSDT', 'bookTicker', '${from}', '${to}', '${cause}', 'unrecoverable', '${to}', '${to}')`
}

/** SQL that inserts a dead letter into its table. */
export function deadLetterSql(offset: number, payload: string, epoch = 0): string {
  const headers = JSON.stringify(epoch === 0 ? [] : [['epoch', String(epoch)]])
  return `INSERT INTO dead_letters (topic, topic_id, partition, kafka_offset, origin, reason, payload, headers, failed_at)
    VALUES ('t', '00000000-0000-4000-8000-000000000000', 0, ${offset}, 'consumer', 'p is not a decimal', convert_to('${payload}', 'UTF8'), '${headers}', now())`
}

/** The failures found by verify, like `continuity: missing, BTCUSDT trade, 3: 1005..1006 1050`. */
export function failuresOf({ findings }: Report): string[] {
  return findings
    .filter(({ severity }) => severity === 'failure')
    .map(({ check, kind, symbol, eventType, count, examples }) => {
      const ids = examples.map(({ from, to }) => (from === to ? `${from}` : `${from}..${to}`))
      return `${check}: ${kind}, ${symbol} ${eventType}, ${count}: ${ids.join(' ')}`
    })
}
