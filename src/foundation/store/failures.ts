import { sqlStateOf } from './sql-state.ts'
import { UnansweredError } from './unanswered.ts'

/**
 * The reaction to a failure of the database.
 *
 * - `retry`: the database is down, overloaded or in conflict; the same batch is written again
 *   later.
 * - `row`: the database refuses a value, although it passed our checks.
 * - `stop`: a defect of Tapeline, or an unsuitable database; waiting does not help. Stopping loses
 *   nothing, since nothing was committed.
 */
export type FailureKind = 'retry' | 'row' | 'stop'

/** Every class of PostgreSQL 17's SQLSTATEs (manual, appendix A), and TimescaleDB's own. */
const BY_CLASS = {
  '00': 'stop', // successful completion: no failure at all
  '01': 'stop', // warning
  '02': 'stop', // no data
  '03': 'stop', // SQL statement not yet complete
  '08': 'retry', // connection exception
  '09': 'stop', // triggered action exception
  '0A': 'stop', // feature not supported
  '0B': 'stop', // invalid transaction initiation
  '0F': 'stop', // locator exception
  '0L': 'stop', // invalid grantor
  '0P': 'stop', // invalid role specification
  '0Z': 'stop', // diagnostics exception
  '10': 'stop', // XQuery error
  '20': 'stop', // case not found
  '21': 'stop', // cardinality violation
  '22': 'row', // data exception
  '23': 'row', // integrity constraint violation
  '24': 'stop', // invalid cursor state
  '25': 'stop', // invalid transaction state
  '26': 'stop', // invalid SQL statement name
  '27': 'stop', // triggered data change violation
  '28': 'stop', // invalid authorization specification
  '2B': 'stop', // dependent privilege descriptors still exist
  '2D': 'stop', // invalid transaction termination
  '2F': 'stop', // SQL routine exception
  '34': 'stop', // invalid cursor name
  '38': 'stop', // external routine exception
  '39': 'stop', // external routine invocation exception
  '3B': 'stop', // savepoint exception
  '3D': 'stop', // invalid catalog name: no such database
  '3F': 'stop', // invalid schema name
  '40': 'stop', // transaction rollback
  '42': 'stop', // syntax error or access rule violation
  '44': 'stop', // WITH CHECK OPTION violation
  '53': 'retry', // insufficient resources: disk full, too many connections
  '54': 'stop', // program limit exceeded
  '55': 'stop', // object not in prerequisite state
  '57': 'retry', // operator intervention: shutdown, statement cancelled
  '58': 'stop', // system error
  F0: 'stop', // configuration file error
  HV: 'stop', // foreign data wrapper error
  P0: 'stop', // PL/pgSQL error: a trigger that raises without a code of class 22 or 23
  TS: 'stop', // TimescaleDB
  XX: 'stop', // internal error: corruption
} as const satisfies Readonly<Record<string, FailureKind>>

/** Conditions that differ from their class. */
const BY_CODE = {
  '25006': 'retry', // read-only transaction: a standby that is being promoted
  '25P03': 'retry', // idle-in-transaction timeout, after a pause of this process
  '25P04': 'retry', // transaction timeout, after a pause of this process
  '40001': 'retry', // serialization failure
  '40P01': 'retry', // deadlock detected
  '53400': 'stop', // configuration limit exceeded, even for portions of the batch, see `portions.ts`
  '55P03': 'retry', // lock not available
  '58030': 'retry', // I/O error
} as const satisfies Readonly<Record<string, FailureKind>>

/**
 * Errors reported as XX000 (internal) that are harmless and retryable, by the server routine that
 * raised them, which is a field of the answer like the SQLSTATE.
 *
 * - `relation_open`: an INSERT has found its chunk, but retention dropped it before it was locked
 *   (measured on TimescaleDB 2.19; by `npm test -- consumer-retention`).
 */
const BY_ROUTINE: Readonly<Record<string, FailureKind>> = { relation_open: 'retry' }

/** Classifies an error. Total: always returns one of the three. */
export function failureKind(error: unknown): FailureKind {
  const state = sqlStateOf(error)
  if (state === null) return isConnectionFailure(error) ? 'retry' : 'stop'
  if (state === 'XX000') {
    const routine: unknown = Reflect.get(Object(error), 'routine')
    if (typeof routine === 'string') return lookUp(BY_ROUTINE, routine) ?? BY_CLASS.XX
  }
  return lookUp(BY_CODE, state) ?? lookUp(BY_CLASS, state.slice(0, 2)) ?? 'stop'
}

function lookUp(table: Readonly<Record<string, FailureKind>>, key: string): FailureKind | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined
}

/**
 * A broken connection is an error of Node (ECONNRESET, …), of the Kafka client (PLT_KFK_…), or of
 * pg, whose own errors are plain and have no code. JavaScript error classes and codes of Node's
 * argument checks are defects of Tapeline, except those of TLS.
 */
function isConnectionFailure(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code: unknown = Reflect.get(error, 'code')
  if (typeof code === 'string') return !code.startsWith('ERR_') || /^ERR_(TLS|SSL)_/.test(code)
  return (
    error instanceof UnansweredError || error.constructor === Error || error.constructor === AggregateError
  )
}
