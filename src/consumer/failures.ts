/**
 * What may be done about a failure of the database.
 *
 * - `retry`: the database is away, overloaded or in conflict; the same batch is written again after a while.
 * - `row`: a value the database does not take, although it passed our checks.
 * - `stop`: a defect of ours, or a database that is not what we need; waiting does not mend it.
 */
export type FailureKind = 'retry' | 'row' | 'stop'

/**
 * By SQLSTATE, the longest prefix counts (PostgreSQL manual, appendix A). What is not named here stops the
 * service: nothing is lost by that, since nothing was committed.
 */
const BY_SQLSTATE: Readonly<Record<string, FailureKind>> = {
  '08': 'retry', // connection exception
  '22': 'row', // data exception
  '23': 'row', // integrity constraint violation
  '25006': 'retry', // read-only transaction: a standby that is being promoted
  '25P03': 'retry', // idle-in-transaction timeout, after a pause of this process
  '40001': 'retry', // serialization failure
  '40P01': 'retry', // deadlock detected
  '53': 'retry', // insufficient resources: disk full, too many connections
  '55P03': 'retry', // lock not available
  '57': 'retry', // operator intervention: shutdown, statement cancelled
  '58030': 'retry', // I/O error
}

/** Total: whatever was thrown, one of the three. */
export function failureKind(error: unknown): FailureKind {
  // A broken connection comes as an error of Node (ECONNRESET, …) or of pg, which gives none of a code. Errors of
  // the language itself are ours.
  if (!(error instanceof Error) || error instanceof TypeError || error instanceof RangeError) return 'stop'
  const code: unknown = Reflect.get(error, 'code')
  if (typeof code !== 'string' || !/^[0-9A-Z]{5}$/.test(code) || /^E[A-Z]+$/.test(code)) return 'retry'
  return BY_SQLSTATE[code] ?? BY_SQLSTATE[code.slice(0, 2)] ?? 'stop'
}
