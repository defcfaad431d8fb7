import { describeError } from '../runtime/errors.ts'

/** Codes of PostgreSQL's conditions (manual, appendix A) that more than one place asks for. */
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

/** The SQLSTATE that an error carries, or null: then it was not the server that spoke. */
export function sqlStateOf(error: unknown): string | null {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : null
  // EPIPE and its like have five letters too; no class of SQLSTATEs begins with an E.
  return typeof code === 'string' && /^(?!E)[0-9A-Z]{5}$/.test(code) ? code : null
}

/**
 * Whether the session must not be used again after this error: it may stay read-only although the database no longer is
 * (25006), its server is shutting down (57P0x), or its connection is broken, for a pooler in between too (08xxx).
 */
export function endsSession(error: unknown): boolean {
  const state = sqlStateOf(error)
  return state !== null && /^(25006|57P0.|08...)$/.test(state)
}

/** SQLSTATE and message, as PostgreSQL gives them. */
export function describeRefusal(error: unknown): string {
  return `${sqlStateOf(error) ?? ''} ${describeError(error)}`.trim()
}
