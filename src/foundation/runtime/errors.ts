/**
 * Codes of errors that a person can act on. Any other thrown error is a defect and keeps its stack.
 *
 * - `SETTINGS`: a setting is wrong or contradicts another; exit code 2, nothing was opened.
 * - `ENVIRONMENT`: the machine lacks something or has it in use (Java, a port, a folder).
 * - `SOURCE`: data of another source (live, simulated, a capture) is already there.
 * - `EXCHANGE`: the exchange refuses in a way that waiting does not fix (a symbol, a region).
 * - `ACCESS`: Kafka or the database refuses the user or a right, or cannot prove its identity (a
 *   certificate, a password, a right): a person has to fix it.
 * - `KAFKA`: the broker is reachable but not as needed (a topic is missing or differs).
 * - `DATABASE`: the database is reachable but not as needed (newer schema, no TimescaleDB).
 * - `ARCHIVE`: the archive is reachable but not as needed (another's folder, a damaged record).
 * - `STORE`: the bucket of the archive refuses, or does not answer: it may recover, or a person may fix
 *   it meanwhile, so a service retries.
 * - `SCHEMA`: a message has a newer schema than this program supports.
 * - `INPUT`: a file or argument from the user is wrong.
 * - `INTERRUPTED`: a person or the system stopped a command before it was done.
 * - `STOPPED_DIRTY`: a shutdown could not deliver everything; a restart recovers it.
 */
export type ErrorCode =
  | 'SETTINGS'
  | 'ENVIRONMENT'
  | 'SOURCE'
  | 'EXCHANGE'
  | 'ACCESS'
  | 'KAFKA'
  | 'DATABASE'
  | 'ARCHIVE'
  | 'STORE'
  | 'SCHEMA'
  | 'INPUT'
  | 'INTERRUPTED'
  | 'STOPPED_DIRTY'

/** An error with a cause that a person understands, and the next step to fix it. */
export class TapelineError extends Error {
  readonly code: ErrorCode
  /** The next step, as an imperative sentence. Empty if there is none. */
  readonly fix: string

  constructor(code: ErrorCode, message: string, options: { fix?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'TapelineError'
    this.code = code
    this.fix = options.fix ?? ''
  }

  /** 2 for a wrong setting or argument (nothing was opened), 1 for everything else. */
  get exitCode(): 1 | 2 {
    return this.code === 'SETTINGS' || this.code === 'INPUT' ? 2 : 1
  }
}

export function isTapelineError(error: unknown, code?: ErrorCode): error is TapelineError {
  return error instanceof TapelineError && (code === undefined || error.code === code)
}

/** Whether a retry cannot help: a person has to act, and then start the service again. */
export function isFinal(error: unknown): error is TapelineError {
  return isTapelineError(error) && error.code !== 'STORE'
}

/** The code that Node, a driver or a library gave an error; undefined if it has none. */
export function codeOf(error: unknown): unknown {
  return error instanceof Error ? Reflect.get(error, 'code') : undefined
}

/** The result, or null if the file does not exist. */
export async function nullIfMissing<Result>(work: Promise<Result>): Promise<Result | null> {
  try {
    return await work
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
}

/** Describes anything that was thrown in one line, with its fixes. */
export function describeWithFix(error: unknown): string {
  return [describeError(error), ...new Set(fixesOf(error))].join('. ')
}

function fixesOf(error: unknown): string[] {
  if (error instanceof AggregateError) return error.errors.flatMap(fixesOf)
  return isTapelineError(error) && error.fix !== '' ? [error.fix] : []
}

/** Describes anything that was thrown in one line. Never throws. */
export function describeError(error: unknown): string {
  return describe(error, new Set())
}

/** @param above the errors above this cause, which stop a cycle of causes */
function describe(error: unknown, above: ReadonlySet<unknown>): string {
  if (!(error instanceof Error)) return String(error)
  // Its message already includes what matters about its cause.
  if (isTapelineError(error)) return error.message
  // Removes the full stop before the colon.
  const own = error.message.replace(/\.$/, '')
  const seen = new Set([...above, error])
  const within: unknown[] = error instanceof AggregateError ? error.errors : []
  const causes = within.length > 0 ? within : error.cause instanceof Error ? [error.cause] : []
  const inner = new Set(causes.filter((one) => !seen.has(one)).map((one) => describe(one, seen)))
  const told = [...inner].filter((text) => !own.includes(text)).join('; ')
  if (own === '' && told === '') return Reflect.get(error, 'code')?.toString() ?? error.name
  return [own, told].filter((text) => text !== '').join(': ')
}

export type CertificateFault = 'untrusted' | 'outdated' | 'other host'

/** By the error code of OpenSSL or Node. */
const FAULTS: Readonly<Record<string, CertificateFault>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'untrusted',
  UNABLE_TO_GET_ISSUER_CERT: 'untrusted',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'untrusted',
  SELF_SIGNED_CERT_IN_CHAIN: 'untrusted',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'untrusted',
  CERT_UNTRUSTED: 'untrusted',
  CERT_SIGNATURE_FAILURE: 'untrusted',
  INVALID_CA: 'untrusted',
  CERT_HAS_EXPIRED: 'outdated',
  CERT_NOT_YET_VALID: 'outdated',
  ERR_TLS_CERT_ALTNAME_INVALID: 'other host',
}

export function certificateFault(code: unknown): CertificateFault | null {
  return typeof code === 'string' ? (FAULTS[code] ?? null) : null
}
