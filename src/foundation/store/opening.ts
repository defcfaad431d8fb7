import { SQLSTATE, sqlStateOf } from './sql-state.ts'

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
