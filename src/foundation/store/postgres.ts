import { finished } from 'node:stream/promises'
import { Pool, type PoolClient } from 'pg'
import { from } from 'pg-copy-streams'
import { sleep } from '../runtime/backoff.ts'
import { cancelOnAbort } from './cancellation.ts'
import { databaseConnectionError } from './connection-errors.ts'
import { connectionOptions } from './connection-options.ts'
import type { Database, QueryAnswer } from './database.ts'
import { CLIENT_GRACE_MS, type Session, transactionsOn } from './transactions.ts'

export interface PostgresOptions {
  /** `sslmode` in it has libpq's meaning. */
  readonly url: string
  readonly poolMin: number
  readonly poolMax: number
  /** Limit of each statement in a transaction without one; a minute by default. */
  readonly queryTimeoutMs?: number
  /** Shown in `pg_stat_activity`. */
  readonly applicationName: string
}

const CONNECT_TIMEOUT_MS = 5000

/** A statement without an answer for so long has lost its server; a batch takes milliseconds. */
const QUERY_TIMEOUT_MS = 60_000

/**
 * After so much silence the system probes whether the server is still there, and soon closes the
 * connection if not.
 */
const KEEP_ALIVE_AFTER_MS = 10_000

/**
 * An older session is closed when it is idle: its initial settings may be outdated, or its server
 * may no longer be the primary.
 */
const SESSION_MAX_AGE_S = 10 * 60

/** A server without COPY FROM STDIN announces that by this setting of its sessions. */
const CAN_COPY = `SELECT current_setting('tapeline.copy', true) IS DISTINCT FROM 'off' AS "canCopy"`

/** How long closing waits for running statements. */
const CLOSE_TIMEOUT_MS = 1000

/**
 * Opens a pool. The first statement connects, and rejects with a TapelineError `ACCESS` if the
 * server refuses this client or cannot prove its identity.
 *
 * @throws TapelineError `SETTINGS` if a file that the URL names is unreadable
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
  // The pool removes a broken connection, and its running statement fails with an error for the
  // caller. Without a listener this event would end the process.
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
  const query = <Row>(text: string, values?: readonly unknown[]) =>
    transact('statement', (connection) => connection.query<Row>(text, values))
  let canCopy: boolean | null = null
  return {
    query,
    async canCopy() {
      canCopy ??= (await query<{ canCopy: boolean }>(CAN_COPY)).rows[0]?.canCopy === true
      return canCopy
    },
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
      const answer = await client.query(statement)
      return { rows: answer.rows ?? [], rowCount: answer.rowCount ?? 0 }
    },
    async copyIn(statement, rows) {
      const copy = client.query(from(statement))
      // The stream does not notice an error of the server, and would continue on a connection that
      // it no longer has.
      copy.once('error', () => copy.destroy())
      copy.end(rows)
      await finished(copy)
      return copy.rowCount
    },
    cancelOnAbort: (signal) => cancelOnAbort(client, url, signal),
    release: () => client.release(),
    close: () => client.release(true),
  }
}
