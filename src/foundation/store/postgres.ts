import { finished } from 'node:stream/promises'
import { Pool, type PoolClient } from 'pg'
import { from } from 'pg-copy-streams'
import { sleep } from '../runtime/backoff.ts'
import { cancelOnAbort } from './cancellation.ts'
import { connectionOptions, databaseConnectionError } from './connection.ts'
import type { Connection, Database, QueryAnswer, TransactionOptions } from './database.ts'
import { endsSession, SQLSTATE, sqlStateOf } from './sql-state.ts'
import { UnansweredError } from './unanswered.ts'

/**
 * - `write`: works also in a session that was opened while the database was read-only.
 * - `snapshot`: sees one snapshot, and cannot write.
 * - `statement`: a single statement, which a server in recovery also runs if it only reads.
 */
export type TransactionMode = 'write' | 'snapshot' | 'statement'

interface Opening {
  readonly begin: string
  /** A process that is paused in a transaction keeps its locks for so long. Readers have none. */
  readonly idleLimitMs: number
}

const OPENINGS: Readonly<Record<TransactionMode, Opening>> = {
  write: { begin: 'BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE', idleLimitMs: 60_000 },
  snapshot: { begin: 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY', idleLimitMs: 60 * 60_000 },
  statement: { begin: 'BEGIN ISOLATION LEVEL READ COMMITTED', idleLimitMs: 60_000 },
}

/** A server that does not open a transaction within this time is down or has no free session. */
export const OPENING_LIMIT_MS = 10_000

/**
 * Returns the text that opens every transaction, in one round trip. It sets whatever Tapeline needs that
 * the database or the role may have set otherwise, for this transaction: a pooler may use another session
 * for the next one. `search_path` is left to the database's owner.
 * @param limitMs for each statement, including its wait for locks
 */
export function openingText(mode: TransactionMode, limitMs: number): string {
  const { begin, idleLimitMs } = OPENINGS[mode]
  // PostgreSQL has transaction_timeout since version 17; every version accepts a name with a dot.
  return `${begin};
SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';
SET LOCAL IntervalStyle = 'postgres';
SET LOCAL bytea_output = 'hex';
SET LOCAL extra_float_digits = 1;
SET LOCAL array_nulls = on;
SET LOCAL standard_conforming_strings = on;
SET LOCAL statement_timeout = ${limitMs};
SET LOCAL lock_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = ${idleLimitMs};
SELECT set_config(CASE WHEN current_setting('server_version_num')::int >= 170000 THEN '' ELSE 'tapeline.' END
  || 'transaction_timeout', '0', true)`
}

/** How much later than the server the client abandons a statement, so that a server that works ends it. */
export const CLIENT_GRACE_MS = 2000

/** Runs a statement with a limit of the server and `pg`. @throws UnansweredError after it */
export async function limitedStatement<Answer>(
  limitMs: number,
  statement: () => Promise<Answer>,
): Promise<Answer> {
  const startedMs = performance.now()
  try {
    return await statement()
  } catch (error) {
    // The error of `pg` has no code, the server's is that of a manual cancel: the time decides.
    const mayBeLimit = !hasCode(error) || sqlStateOf(error) === SQLSTATE.queryCanceled
    if (mayBeLimit && performance.now() - startedMs >= limitMs - 1)
      throw new UnansweredError(limitMs, '', error)
    throw error
  }
}

/** An error without a code is not from the server. */
function hasCode(error: unknown): boolean {
  return error instanceof Error && Reflect.get(error, 'code') !== undefined
}

export interface Session {
  /** @param limitMs that {@link openingText} has set in the server; the client waits a little longer */
  run<Row>(limitMs: number, text: string, values?: readonly unknown[]): Promise<QueryAnswer<Row>>
  copyIn(statement: string, rows: Buffer): Promise<number>
  /** Lets the signal cancel the running statement. Call the result before the session is used again. */
  cancelOnAbort(signal: AbortSignal): Promise<() => Promise<void>>
  release(): void
  /** Closes the session and removes it from the pool. */
  close(): void
}

/** Runs work between BEGIN and COMMIT, in a session of the pool. */
type Transact = <Result>(
  mode: TransactionMode,
  work: (connection: Connection) => Promise<Result>,
  options?: Pick<TransactionOptions, 'limitMs' | 'signal'>,
) => Promise<Result>

/**
 * Returns the only way to send statements. A session with state that outlives a transaction is closed.
 * @param limitMs for COMMIT, and for statements of a transaction without a limit
 */
export function transactionsOn(acquire: () => Promise<Session>, limitMs: number): Transact {
  return async (mode, work, { limitMs: own = limitMs, signal } = {}) => {
    signal?.throwIfAborted()
    const session = await acquire()
    let stopCancelling = async () => {}
    try {
      await run(session, Math.min(limitMs, OPENING_LIMIT_MS), openingText(mode, own)).catch(refuseOpening)
      if (signal !== undefined) stopCancelling = await session.cancelOnAbort(signal)
      const result = await work({
        query: (text, values) => {
          signal?.throwIfAborted()
          return run(session, own, text, values)
        },
        copyIn: (statement, rows) => limitedStatement(limitMs, () => session.copyIn(statement, rows)),
      })
      await stopCancelling()
      await run(session, limitMs, 'COMMIT')
      session.release()
      return result
    } catch (error) {
      await stopCancelling()
      await giveBack(session, limitMs, error)
      throw signal?.aborted === true ? signal.reason : error
    }
  }
}

function run<Row>(
  session: Session,
  limitMs: number,
  text: string,
  values?: readonly unknown[],
): Promise<QueryAnswer<Row>> {
  return limitedStatement(limitMs, () => session.run<Row>(limitMs, text, values))
}

/**
 * A server in recovery (a standby, or a primary that is being restored) refuses READ WRITE as an
 * unsupported feature. @throws an error with the code of a read-only transaction, which is retried
 */
function refuseOpening(cause: unknown): never {
  if (sqlStateOf(cause) !== SQLSTATE.featureNotSupported) throw cause
  const error = new Error('The database is read-only: its server is a standby, or is in recovery', { cause })
  error.name = 'ReadOnlyError'
  throw Object.assign(error, { code: SQLSTATE.readOnlyTransaction })
}

/** Returns the session to the pool if it is clean; otherwise closes it. */
async function giveBack(session: Session, limitMs: number, cause: unknown): Promise<void> {
  // Another program may have left its search_path in a pooler's session; closing ends it.
  const isStrange = sqlStateOf(cause) === SQLSTATE.undefinedTable
  // Without an answer the server may be down, or still busy with the statement.
  if (!hasCode(cause) || endsSession(cause) || isStrange) {
    session.close()
    return
  }
  try {
    await run(session, limitMs, 'ROLLBACK')
    session.release()
  } catch {
    session.close()
  }
}

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

/** After so much silence the system probes the server, and soon closes the connection if it is gone. */
const KEEP_ALIVE_AFTER_MS = 10_000

/** An older idle session is closed: its settings may be outdated, or its server no longer the primary. */
const SESSION_MAX_AGE_S = 10 * 60

/** A server without COPY FROM STDIN announces that by this setting of its sessions. */
const CAN_COPY = `SELECT current_setting('tapeline.copy', true) IS DISTINCT FROM 'off' AS "canCopy"`

/** How long closing waits for running statements. */
const CLOSE_TIMEOUT_MS = 1000

/** Opens a pool. @throws TapelineError `SETTINGS` for a file; `ACCESS` from the first statement */
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
  // The statement of a broken connection fails. Without a listener this event would end the process.
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
      // The stream does not notice an error of the server, and would write on without a connection.
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
