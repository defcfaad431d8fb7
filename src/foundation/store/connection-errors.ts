import {
  type CertificateFault,
  certificateFault,
  describeError,
  isTapelineError,
  TapelineError,
} from '../runtime/errors.ts'

const CERTIFICATE: Readonly<Record<CertificateFault, readonly [what: string, fix: string]>> = {
  untrusted: [
    'the certificate of the database is not signed by a trusted authority',
    'Add sslrootcert=FILE to DATABASE_URL: the PEM file of the authority that signed it.',
  ],
  outdated: [
    'the certificate of the database is not valid at this time',
    'Renew it on the server, or set the clock of this machine.',
  ],
  'other host': [
    'the certificate of the database is for another host',
    'In DATABASE_URL, use a host name that the certificate has, or sslmode=verify-ca.',
  ],
}

const LOGIN_FIX =
  'Check user, password and, where the server asks for one, sslcert and sslkey in DATABASE_URL.'

/** Login errors by SQLSTATE (PostgreSQL manual, appendix A). */
const LOGIN: Readonly<Record<string, readonly [what: string, fix: string]>> = {
  '28000': ['the database refuses the login', LOGIN_FIX],
  '28P01': ['the database refuses the login', LOGIN_FIX],
  '3D000': ['the database does not exist', 'Create it, or correct its name in DATABASE_URL.'],
}

/**
 * Returns the reason for a refused connection as an error that a person can act on; null for any
 * other error. Total: never throws, whatever was thrown.
 *
 * @param where without a password: `host:port`
 */
export function databaseConnectionError(error: unknown, where: string): TapelineError | null {
  if (!(error instanceof Error) || isTapelineError(error)) return null
  const code: unknown = Reflect.get(error, 'code')
  const fault = certificateFault(code)
  const known = fault !== null ? CERTIFICATE[fault] : typeof code === 'string' ? LOGIN[code] : undefined
  if (known === undefined) return null
  const [what, fix] = known
  const message = `Database at ${where}: ${what} (${describeError(error)})`
  return new TapelineError('ACCESS', message, { fix, cause: error })
}
