import { codeOf, describeError, isTapelineError } from '../runtime/errors.ts'

/** SQLSTATEs (PostgreSQL manual, appendix A) that are used in several places. */
export const SQLSTATE = {
  featureNotSupported: '0A000',
  readOnlyTransaction: '25006',
  insufficientPrivilege: '42501',
  undefinedTable: '42P01',
  undefinedColumn: '42703',
  configurationLimitExceeded: '53400',
  lockNotAvailable: '55P03',
  outOfMemory: '53200',
  queryCanceled: '57014',
} as const

/** Returns the SQLSTATE of an error; null if the error is not from the server. */
export function sqlStateOf(error: unknown): string | null {
  // Our own codes may have five letters, too.
  const code = isTapelineError(error) ? null : codeOf(error)
  // And so has EPIPE; no SQLSTATE class begins with an E.
  return typeof code === 'string' && /^(?!E)[0-9A-Z]{5}$/.test(code) ? code : null
}

/**
 * Whether the session must not be reused: it may stay read-only (25006), its server is shutting down
 * (57P0x), or a connection is broken, perhaps a pooler's (08xxx).
 */
export function endsSession(error: unknown): boolean {
  const state = sqlStateOf(error)
  return state !== null && /^(25006|57P0.|08...)$/.test(state)
}

/** Returns SQLSTATE and message, as PostgreSQL gives them. */
export function describeRefusal(error: unknown): string {
  return `${sqlStateOf(error) ?? ''} ${describeError(error)}`.trim()
}
