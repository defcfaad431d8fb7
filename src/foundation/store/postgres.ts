import { Pool, type PoolClient } from 'pg'
import { sleep } from '../runtime/backoff.ts'
import { databaseConnectionError } from './connection-errors.ts'
import { connectionOptions } from './connection-options.ts'
import { copyIn } from './copy-in.ts'
import type { Database, QueryAnswer } from './database.ts'
import { CLIENT_GRACE_MS, cancelOnAbort, limitedStatement, type StopCancelling } from './statement-limits.ts'

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

const BEGIN_SNAPSHOT = 'BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY'

/** A statement without an answer for so long has lost its server; a batch takes milliseconds. */
const QUERY_TIMEOUT_MS = 60_000

/** After so long without a word the system asks whether the server is still there, and gives it up soon. */
const KEEP_ALIVE_AFTER_MS = 10_000

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
    query_timeout: limitMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEP_ALIVE_AFTER_MS,
    application_name: options.applicationName,
    options: '-c timezone=UTC',
  })
  // A connection that breaks leaves the pool by itself, and what runs on it fails with an error of its own, which
  // its caller sees; only without a listener would the event end the process.
  const alreadyReported = () => {}
  pool.on('error', alreadyReported)
  pool.on('connect', (client) => client.on('error', alreadyReported))
  const { host } = new URL(options.url)
  const refused = (error: unknown): never => {
    throw databaseConnectionError(error, host) ?? error
  }
  return {
    query: <Row>(text: string, values?: readonly unknown[], name?: string) =>
      run<Row>(pool, limitMs, text, values, name).catch(refused),
    async transaction(work, { isSnapshot = false, limitMs: own, signal } = {}) {
      signal?.throwIfAborted()
      const client = await pool.connect().catch(refused)
      let stopCancelling: StopCancelling = async () => {}
      try {
        await run(client, limitMs, isSnapshot ? BEGIN_SNAPSHOT : 'BEGIN')
        if (own !== undefined) await run(client, limitMs, `SET LOCAL statement_timeout = ${own}`)
        stopCancelling = await cancelOnAbort(client, options.url, signal)
        const result = await work({
          query: (text, values, name) => {
            signal?.throwIfAborted()
            return run(client, own ?? limitMs, text, values, name, own === undefined ? 0 : CLIENT_GRACE_MS)
          },
          copyIn: (statement, rows) => limitedStatement(limitMs, () => copyIn(client, statement, rows)),
        })
        await stopCancelling()
        await run(client, limitMs, 'COMMIT')
        client.release()
        return result
      } catch (error) {
        await stopCancelling()
        await rollBack(client, error)
        throw signal?.aborted === true ? signal.reason : error
      }
    },
    async close() {
      await Promise.race([pool.end(), sleep(CLOSE_TIMEOUT_MS)])
    },
  }
}

/** @param graceMs how much longer than the server, which has the same limit, the client waits */
async function run<Row>(
  on: Pool | PoolClient,
  limitMs: number,
  text: string,
  values?: readonly unknown[],
  name?: string,
  graceMs = 0,
): Promise<QueryAnswer<Row>> {
  const statement = {
    text,
    query_timeout: limitMs + graceMs,
    ...(values === undefined ? {} : { values: [...values] }),
    ...(name === undefined ? {} : { name }),
  }
  const answer = await limitedStatement(limitMs, () => on.query(statement))
  return { rows: answer.rows ?? [], rowCount: answer.rowCount ?? 0 }
}

/** Gives the connection back clean, or closes it: one in an unknown state must not be used again. */
async function rollBack(client: PoolClient, cause: unknown): Promise<void> {
  // Without a SQLSTATE it was not the server that spoke: it may be gone, or still busy with the statement.
  if (!(cause instanceof Error) || typeof Reflect.get(cause, 'code') !== 'string') {
    client.release(true)
    return
  }
  try {
    await client.query('ROLLBACK')
    client.release()
  } catch (error) {
    client.release(error instanceof Error ? error : true)
  }
}
