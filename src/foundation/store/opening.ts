import { SQLSTATE, sqlStateOf } from './sql-state.ts'

/**
 * - `write`: also in a session that was opened while the database was read-only, and would stay so.
 * - `snapshot`: sees the rows of one moment, and cannot write.
 * - `statement`: a single statement, which a server in recovery runs as well where it only reads.
 */
export type TransactionMode = 'write' | 'snapshot' | 'statement'

const BEGIN: Readonly<Record<TransactionMode, string>> = {
  write: 'BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE',
  snapshot: 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY',
  statement: 'BEGIN ISOLATION LEVEL READ COMMITTED',
}

/** Opening does no work: a server that has not answered by then is gone, or has no session free. */
export const OPENING_LIMIT_MS = 10_000

/** A process that is paused in a transaction holds its locks for so long. Readers hold none, and may wait for a person. */
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

/** PostgreSQL has this setting from 17 on; under a name with a dot, every version takes it. */
const NO_TRANSACTION_TIMEOUT = `SELECT set_config(
  CASE WHEN current_setting('server_version_num')::int >= 170000 THEN '' ELSE 'tapeline.' END || 'transaction_timeout', '0', true)`

/**
 * The text that opens every transaction, in one round trip. All that Tapeline needs of a session is in it, and ends with the
 * transaction: a pooler may give the next one another session. `search_path` is left to the owner of the database.
 *
 * @param limitMs for each statement; a statement that waits for a lock has no other limit
 */
export function openingText(mode: TransactionMode, limitMs: number): string {
  return `${BEGIN[mode]};
${VALUES};
SET LOCAL statement_timeout = ${limitMs};
SET LOCAL lock_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = ${IDLE_LIMIT_MS[mode]};
${NO_TRANSACTION_TIMEOUT}`
}

/** The server is in recovery: a standby, or a primary that is being restored. As if it had said so, it is worth another try. */
export class ReadOnlyError extends Error {
  readonly code = SQLSTATE.readOnlyTransaction

  constructor(cause: unknown) {
    super('The database is read-only: its server is a standby, or is in recovery', { cause })
    this.name = 'ReadOnlyError'
  }
}

/** What the opening of a transaction failed with: a server in recovery refuses READ WRITE as a feature that it has not. */
export function openingError(error: unknown): unknown {
  return sqlStateOf(error) === SQLSTATE.featureNotSupported ? new ReadOnlyError(error) : error
}
