import { sqlStateOf } from './sql-state.ts'
import { UnansweredError } from './unanswered.ts'

/**
 * - `retry`: the database is down, overloaded or in conflict; the same batch is written again later.
 * - `row`: the database refuses a value, although it passed our checks.
 * - `stop`: a defect, or an unsuitable database; waiting does not help, and nothing was committed.
 */
export type FailureKind = 'retry' | 'row' | 'stop'

/** By SQLSTATE or its class (PostgreSQL manual, appendix A); all others stop. */
const KINDS: ReadonlyMap<string, FailureKind> = new Map([
  ['08', 'retry'], // connection exception
  ['22', 'row'], // data exception
  ['23', 'row'], // integrity constraint violation
  ['25006', 'retry'], // read-only transaction: a standby that is being promoted
  ['25P03', 'retry'], // idle-in-transaction timeout, after a pause of this process
  ['25P04', 'retry'], // transaction timeout, after a pause of this process
  ['40001', 'retry'], // serialization failure
  ['40P01', 'retry'], // deadlock detected
  ['53', 'retry'], // insufficient resources: disk full, too many connections
  ['53400', 'stop'], // configuration limit exceeded, even for portions of the batch, see `database-store.ts`
  ['55P03', 'retry'], // lock not available
  ['57', 'retry'], // operator intervention: shutdown, statement cancelled
  ['58030', 'retry'], // I/O error
])

/**
 * The server routine (a field of the answer, like the SQLSTATE) of an error that is reported as
 * XX000 (internal), but harmless: an INSERT has found its chunk, but retention dropped it before it
 * was locked (measured on TimescaleDB 2.19; by `npm test -- consumer-retention`).
 */
const DROPPED_CHUNK = 'relation_open'

/** Classifies an error. Total: always returns one of the three. */
export function failureKind(error: unknown): FailureKind {
  const state = sqlStateOf(error)
  if (state === null) return isConnectionFailure(error) ? 'retry' : 'stop'
  if (state === 'XX000' && Reflect.get(Object(error), 'routine') === DROPPED_CHUNK) return 'retry'
  return KINDS.get(state) ?? KINDS.get(state.slice(0, 2)) ?? 'stop'
}

/**
 * A broken connection is an error of Node (ECONNRESET, …), of the Kafka client (PLT_KFK_…), or of `pg`,
 * without a code. JavaScript's error classes and codes of argument checks are defects, except of TLS.
 */
function isConnectionFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code: unknown = Reflect.get(error, 'code')
  if (typeof code === 'string') return !code.startsWith('ERR_') || /^ERR_(TLS|SSL)_/.test(code)
  return (
    error instanceof UnansweredError || error.constructor === Error || error.constructor === AggregateError
  )
}
