/**
 * The errors that a person can act on. Everything else that is thrown is a defect and keeps its stack.
 *
 * - `SETTINGS`: a setting is wrong or contradicts another; exit code 2, nothing was opened.
 * - `ENVIRONMENT`: something the machine lacks or holds (Java, a port, a folder in use).
 * - `SOURCE`: data of another source (live, simulated, a capture) is already there.
 * - `EXCHANGE`: the exchange refused in a way that waiting does not mend (a symbol, a region).
 * - `ACCESS`: Kafka or the database refuses who this is or what it may do, or is not who it should be (a certificate, a
 *   password, a right): a person has to mend it.
 * - `KAFKA`: the broker is there but not as needed (a topic missing or different).
 * - `DATABASE`: the database is there but not as needed (schema newer than the program, no TimescaleDB).
 * - `SCHEMA`: a message is of a newer schema than this program knows.
 * - `INPUT`: a file or argument given by the person is wrong.
 * - `INTERRUPTED`: a person or the system ended a command before it was done.
 * - `STOPPED_DIRTY`: a stop could not deliver everything; a restart heals it.
 */
export type ErrorCode =
  | 'SETTINGS'
  | 'ENVIRONMENT'
  | 'SOURCE'
  | 'EXCHANGE'
  | 'ACCESS'
  | 'KAFKA'
  | 'DATABASE'
  | 'SCHEMA'
  | 'INPUT'
  | 'INTERRUPTED'
  | 'STOPPED_DIRTY'

/** An error with a cause a person understands and the next step that mends it. */
export class TapelineError extends Error {
  readonly code: ErrorCode
  /** The next step, as an imperative sentence. Empty when there is none. */
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

/** What can be said in one line about anything that was thrown. Never throws itself. */
export function describeError(error: unknown): string {
  return describe(error, new Set())
}

/** @param above the errors whose cause this is: a cycle of causes comes to an end */
function describe(error: unknown, above: ReadonlySet<unknown>): string {
  if (!(error instanceof Error)) return String(error)
  // It already says of its cause what its reader needs.
  if (error instanceof TapelineError) return error.message
  // A sentence's full stop would stand before the colon.
  const own = error.message.replace(/\.$/, '')
  const seen = new Set([...above, error])
  const within: unknown[] = error instanceof AggregateError ? error.errors : []
  const causes = within.length > 0 ? within : error.cause instanceof Error ? [error.cause] : []
  const inner = new Set(causes.filter((one) => !seen.has(one)).map((one) => describe(one, seen)))
  const told = [...inner].filter((text) => !own.includes(text)).join('; ')
  if (own === '' && told === '') return Reflect.get(error, 'code')?.toString() ?? error.name
  return [own, told].filter((text) => text !== '').join(': ')
}
