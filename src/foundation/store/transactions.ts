import type { Connection, QueryAnswer, TransactionOptions } from './database.ts'
import { endsSession, SQLSTATE, sqlStateOf } from './sql-state.ts'
import { UnansweredError } from './unanswered.ts'

/**
 * - `write`: works also in a session that was opened while the database was read-only.
 * - `snapshot`: sees one snapshot, and cannot write.
 * - `statement`: a single statement, which a server in recovery also runs if it only reads.
 */
export type TransactionMode = 'write' | 'snapshot' | 'statement'

const BEGIN: Readonly<Record<TransactionMode, string>> = {
  write: 'BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE',
  snapshot: 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY',
  statement: 'BEGIN ISOLATION LEVEL READ COMMITTED',
}

/**
 * Opening does no work: a server that does not answer within this time is down or has no free
 * session.
 */
export const OPENING_LIMIT_MS = 10_000

/**
 * A process that is paused in a transaction keeps its locks for so long. Readers have none, and may
 * wait for a person.
 */
const IDLE_LIMIT_MS: Readonly<Record<TransactionMode, number>> = {
  write: 60_000,
  snapshot: 60 * 60_000,
  statement: 60_000,
}

/** Settings of the database or the role that would change how values are written and read. */
const VALUES = `SET LOCAL TimeZone = 'UTC';
SET LOCAL DateStyle = 'ISO, MDY';
SET LOCAL IntervalStyle = 'postgres';
SET LOCAL bytea_output = 'hex';
SET LOCAL extra_float_digits = 1;
SET LOCAL array_nulls = on;
SET LOCAL standard_conforming_strings = on`

/** PostgreSQL has this setting since version 17; every version accepts a name with a dot. */
const NO_TRANSACTION_TIMEOUT = `SELECT set_config(
  CASE WHEN current_setting('server_version_num')::int >= 170000 THEN '' ELSE 'tapeline.' END || 'transaction_timeout', '0', true)`

/**
 * Returns the text that opens every transaction, in one round trip. It contains all session
 * settings that Tapeline needs, which end with the transaction: a pooler may use another session
 * for the next one. `search_path` is left to the database's owner.
 *
 * @param limitMs for each statement, including its wait for locks
 */
export function openingText(mode: TransactionMode, limitMs: number): string {
  return `${BEGIN[mode]};
${VALUES};
SET LOCAL statement_timeout = ${limitMs};
SET LOCAL lock_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = ${IDLE_LIMIT_MS[mode]};
${NO_TRANSACTION_TIMEOUT}`
}

/**
 * The server is in recovery: a standby, or a primary that is being restored. The code marks it as
 * retryable, as if the server had reported it.
 */
export class ReadOnlyError extends Error {
  readonly code = SQLSTATE.readOnlyTransaction

  constructor(cause: unknown) {
    super('The database is read-only: its server is a standby, or is in recovery', { cause })
    this.name = 'ReadOnlyError'
  }
}

/**
 * Converts the error of an opening: a server in recovery refuses READ WRITE as an unsupported
 * feature.
 */
export function openingError(error: unknown): unknown {
  return sqlStateOf(error) === SQLSTATE.featureNotSupported ? new ReadOnlyError(error) : error
}

/**
 * How much later than the server the client abandons a statement, so that a responsive server ends
 * it first.
 */
export const CLIENT_GRACE_MS = 2000

/**
 * Runs a statement with a limit, which the server and `pg` enforce.
 *
 * @throws UnansweredError after the limit
 */
export async function limitedStatement<Answer>(
  limitMs: number,
  statement: () => Promise<Answer>,
): Promise<Answer> {
  const startedMs = performance.now()
  try {
    return await statement()
  } catch (error) {
    // The error of `pg` has no code, and the server's is the same as for a manual cancel: the
    // elapsed time decides.
    const hasCode = error instanceof Error && Reflect.get(error, 'code') !== undefined
    const mayBeLimit = !hasCode || sqlStateOf(error) === SQLSTATE.queryCanceled
    if (mayBeLimit && performance.now() - startedMs >= limitMs - 1)
      throw new UnansweredError(limitMs, '', error)
    throw error
  }
}

/** A session of the pool. */
export interface Session {
  /**
   * @param limitMs the limit that {@link openingText} has set in the server; the client waits a
   *   little longer
   */
  run<Row>(limitMs: number, text: string, values?: readonly unknown[]): Promise<QueryAnswer<Row>>
  copyIn(statement: string, rows: Buffer): Promise<number>
  /**
   * Lets the signal cancel the running statement. @returns a function that ends this; call it
   * before the session is used for anything else
   */
  cancelOnAbort(signal: AbortSignal): Promise<() => Promise<void>>
  /** Returns the session to the pool. */
  release(): void
  /** Closes the session and removes it from the pool. */
  close(): void
}

/** Runs work between BEGIN and COMMIT, in a session of the pool. */
export type Transact = <Result>(
  mode: TransactionMode,
  work: (connection: Connection) => Promise<Result>,
  options?: Pick<TransactionOptions, 'limitMs' | 'signal'>,
) => Promise<Result>

/**
 * Returns the only way to send statements to the server. No state outlives a transaction; a session
 * with other state is closed.
 *
 * @param limitMs for COMMIT, and for statements of a transaction without a limit
 */
export function transactionsOn(acquire: () => Promise<Session>, limitMs: number): Transact {
  return async (mode, work, { limitMs: own = limitMs, signal } = {}) => {
    signal?.throwIfAborted()
    const session = await acquire()
    let stopCancelling = async () => {}
    try {
      const openingMs = Math.min(limitMs, OPENING_LIMIT_MS)
      await run(session, openingMs, openingText(mode, own)).catch((error: unknown) => {
        throw openingError(error)
      })
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

/** Returns the session to the pool if it is clean; otherwise closes it. */
async function giveBack(session: Session, limitMs: number, cause: unknown): Promise<void> {
  // An error without a code is not from the server, which may be down or still busy with the
  // statement.
  const spoke = cause instanceof Error && typeof Reflect.get(cause, 'code') === 'string'
  // Another program may have left its search_path in a pooler's session; closing this connection
  // ends it.
  const isStrange = sqlStateOf(cause) === SQLSTATE.undefinedTable
  if (!spoke || endsSession(cause) || isStrange) {
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
