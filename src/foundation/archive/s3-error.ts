import { describeError, isTapelineError, TapelineError } from '../runtime/errors.ts'

interface Cause {
  readonly says: string
  readonly fix: string
}

const CREDENTIALS: Cause = {
  says: 'the credentials are refused',
  fix: 'Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN for temporary ones), or the profile or role that the AWS library uses.',
}
const REGION: Cause = {
  says: 'the bucket is in another region',
  fix: 'Set ARCHIVE_S3_REGION to the region of the bucket.',
}
const BUSY: Cause = {
  says: 'the store is overloaded',
  fix: 'Nothing, if it passes; otherwise ask the operator of the store about its limits.',
}
const UNREACHABLE: Cause = {
  says: 'the store does not answer',
  fix: 'Check ARCHIVE_S3_ENDPOINT, the network, and that the store runs.',
}

/** By the name or code of an error: those of the service, of the AWS library, and of sockets. */
const CAUSES: Readonly<Record<string, Cause>> = {
  NoSuchBucket: {
    says: 'the bucket does not exist',
    fix: 'Create it, or correct ARCHIVE_URL and ARCHIVE_S3_ENDPOINT.',
  },
  InvalidBucketName: { says: 'the name of the bucket is not valid', fix: 'Correct ARCHIVE_URL.' },
  InvalidAccessKeyId: CREDENTIALS,
  SignatureDoesNotMatch: CREDENTIALS,
  ExpiredToken: CREDENTIALS,
  InvalidToken: CREDENTIALS,
  InvalidClientTokenId: CREDENTIALS,
  CredentialsProviderError: {
    says: 'there are no credentials',
    fix: 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or give the machine a role.',
  },
  AccessDenied: {
    says: 'the credentials do not permit it',
    fix: 'Grant them the rights in docs/archive.md.',
  },
  RequestTimeTooSkewed: {
    says: "this machine's clock differs from that of the store",
    fix: 'Synchronize the clock of this machine (NTP).',
  },
  PermanentRedirect: REGION,
  AuthorizationHeaderMalformed: REGION,
  SlowDown: BUSY,
  ServiceUnavailable: BUSY,
  InternalError: {
    says: 'the store has an internal error',
    fix: 'Nothing, if it passes; otherwise see the log of the store.',
  },
  NotImplemented: {
    says: 'the store lacks a needed function',
    fix: 'Use another store: docs/archive.md says what it needs.',
  },
  TimeoutError: UNREACHABLE,
  AbortError: UNREACHABLE,
  ECONNREFUSED: UNREACHABLE,
  ECONNRESET: UNREACHABLE,
  EPIPE: UNREACHABLE,
  ENOTFOUND: UNREACHABLE,
  EAI_AGAIN: UNREACHABLE,
  EHOSTUNREACH: UNREACHABLE,
  ENETUNREACH: UNREACHABLE,
  ETIMEDOUT: UNREACHABLE,
}

const OTHER: Cause = { says: 'the store refuses', fix: 'See the answer of the store.' }

/**
 * Explains an error of the AWS library or of a socket.
 *
 * @param store its name
 * @param what was done, such as "PUT _meta.json"
 * @returns a TapelineError `STORE`; the error itself if it is a TapelineError already
 */
export function s3Error(error: unknown, store: string, what: string): TapelineError {
  if (isTapelineError(error)) return error
  const { says, fix } = causeOf(error)
  const status = statusOf(error)
  const code = status === null ? [] : [status, s3Code(error)]
  const answer = [...code, describeError(error)].join(' ')
  return new TapelineError('STORE', `${store}: ${what} failed: ${says} (${answer})`, { fix, cause: error })
}

/** The code of an answer or of a socket's error; empty if there is none. */
export function s3Code(error: unknown): string {
  if (!(error instanceof Error)) return ''
  return error.name in CAUSES ? error.name : String(Reflect.get(error, 'code') ?? error.name)
}

/** The HTTP status of an answer; null if there was none. */
export function statusOf(error: unknown): number | null {
  const metadata: unknown = error instanceof Error ? Reflect.get(error, '$metadata') : undefined
  const status: unknown = metadata instanceof Object ? Reflect.get(metadata, 'httpStatusCode') : undefined
  return typeof status === 'number' ? status : null
}

function causeOf(error: unknown): Cause {
  const found = CAUSES[s3Code(error)]
  if (found !== undefined) return found
  // A connection that can be tried over several addresses.
  const within: unknown =
    error instanceof AggregateError ? error.errors[0] : Reflect.get(Object(error), 'cause')
  if (within instanceof Error) return causeOf(within)
  const status = statusOf(error) ?? 0
  if (status === 503 || status === 429) return BUSY
  if (status === 403) return CAUSES['AccessDenied'] ?? OTHER
  if (status === 301) return REGION
  return OTHER
}
