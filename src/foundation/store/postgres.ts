import { Pool, type PoolClient } from 'pg'
import { sleep } from '../runtime/backoff.ts'
import { databaseConnectionError } from './connection-errors.ts'
import { connectionOptions } from './connection-options.ts'
import { copyIn } from './copy-in.ts'
import type { Database, QueryAnswer } from './database.ts'
import { CLIENT_GRACE_MS, cancelOnAbort, limitedStatement } from './statement-limits.ts'
import { type Session, transactionsOn } from './transactions.ts'

export interface PostgresOptions {
  /** `sslmode` in it means what it means to libpq. */
  readonly url: string
  readonly poolMin: number
  readonly poolMax: number
  /** For each statement of a transaction without a limit. Unset: a minute. */
  readonly queryTimeoutMs?: number
  /** Shown in `pg_stat_activity`. */
  readonly applicationName: string
}

const CONNECT_TIMEOUT_MS = 5000

/** A statement without an answer for so long has lost its server; a batch takes milliseconds. */
const QUERY_TIMEOUT_MS = 60_000

/** After so long without a word the system asks whether the server is still there, and gives it up soon. */
const KEEP_ALIVE_AFTER_MS = 10_000

/** A session that is older is closed when it is free: what it has from its start may no longer hold, nor its server be the primary. */
const SESSION_MAX_AGE_S = 10 * 60

/** How long closing waits for statements that run. */
const CLOSE_TIMEOUT_MS = 1000

/**
 * Opens no connection yet; the first statement does, and rejects with a TapelineError `ACCESS` when the server refuses
 * this client, or is not who it should be.
 *
 * @throws TapelineError `SETTINGS` when a file that the URL names cannot be read
 */
export function openPostgres(options: PostgresOptions): Database {
  const limitMs = options.queryTimeoutMs ?? QUERY_TIMEOUT_MS
  const pool = new Pool({
    ...connectionOptions(options.url),
    min: options.poolMin,
    max: options.poolMax,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    query_timeout: limitMs + CLIENT_GRACE_MS,
    maxLifetimeSeconds: SESSION_MAX_AGE_S,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_AFTER_MS,
    application_name: options.applicationName,
  })
  // A connection that breaks leaves the pool by itself, and what runs on it fails with an error of its own, which
  // its caller sees; only without a listener would the event end the process.
  const alreadyReported = () => {}
  pool.on('error', alreadyReported)
  pool.on('connect', (client) => client.on('error', alreadyReported))
  const { host } = new URL(options.url)
  const acquire = async () => {
    const client = await pool.connect().catch((error: unknown) => {
      throw databaseConnectionError(error, host) ?? error
    })
    return sessionOn(client, options.url)
  }
  const transact = transactionsOn(acquire, limitMs)
  return {
    query: <Row>(text: string, values?: readonly unknown[]) =>
      transact('statement', (connection) => connection.query<Row>(text, values)),
    transaction: (work, { isSnapshot = false, ...limits } = {}) =>
      transact(isSnapshot ? 'snapshot' : 'write', work, limits),
    async close() {
      await Promise.race([pool.end(), sleep(CLOSE_TIMEOUT_MS)])
    },
  }
}

function sessionOn(client: PoolClient, url: string): Session {
  return {
    async run<Row>(limitMs: number, text: string, values?: readonly unknown[]): Promise<QueryAnswer<Row>> {
      const statement = {
        text,
        query_timeout: limitMs + CLIENT_GRACE_MS,
        ...(values === undefined ? {} : { values: [...values] }),
      }
      const answer = await limitedStatement(limitMs, () => client.query(statement))
      return { rows: answer.rows ?? [], rowCount: answer.rowCount ?? 0 }
    },
    copyIn: (limitMs, statement, rows) => limitedStatement(limitMs, () => copyIn(client, statement, rows)),
    cancelOnAbort: (signal) => cancelOnAbort(client, url, signal),
    release: () => client.release(),
    close: () => client.release(true),
  }
}
