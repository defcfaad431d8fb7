import { readFileSync } from 'node:fs'
import type { ConnectionOptions } from 'node:tls'
import { Client } from 'pg'
import {
  type CertificateFault,
  certificateFault,
  describeError,
  isTapelineError,
  TapelineError,
} from '../runtime/errors.ts'
import { NO_DATABASE } from '../settings/parsers.ts'

/** A connection URL without its TLS parameters, for `pg`, and TLS with libpq's meaning. */
interface PostgresConnection {
  readonly connectionString: string
  readonly ssl: ConnectionOptions | false
}

const PARAMETERS = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'sslpassword'] as const

/**
 * Returns options with libpq's meaning of `sslmode` (PostgreSQL manual, 32.19 "SSL Support"). `require`
 * trusts any certificate, but becomes `verify-ca` with `sslrootcert`. `verify-ca` verifies the signer,
 * `verify-full` also the host. Without `sslmode` there is no TLS, unless a file is given.
 * @throws TapelineError `SETTINGS` if a file is unreadable, or there is no database
 */
export function connectionOptions(url: string): PostgresConnection {
  if (url === NO_DATABASE) {
    throw new TapelineError('SETTINGS', `There is no database: DATABASE_URL=${NO_DATABASE}`, {
      fix: 'Rows are in the archive only: add --archive where a command has it (`--help`). For tables, start a database.',
    })
  }
  const parsed = new URL(url)
  const given = Object.fromEntries(PARAMETERS.map((name) => [name, parsed.searchParams.get(name)]))
  const { sslmode, sslrootcert, sslcert, sslkey, sslpassword } = given
  for (const name of PARAMETERS) parsed.searchParams.delete(name)
  const connectionString = parsed.toString()
  const mode = sslmode ?? (sslrootcert === null && sslcert === null ? 'disable' : 'verify-full')
  if (mode === 'disable') return { connectionString, ssl: false }
  const files = {
    // Node's bundled authorities replace those of the system.
    ...(sslrootcert == null || sslrootcert === 'system' ? {} : { ca: read('sslrootcert', sslrootcert) }),
    ...(sslcert == null ? {} : { cert: read('sslcert', sslcert) }),
    ...(sslkey == null ? {} : { key: read('sslkey', sslkey) }),
    ...(sslpassword == null ? {} : { passphrase: sslpassword }),
  }
  return { connectionString, ssl: { ...files, ...checks(mode, sslrootcert != null) } }
}

function checks(mode: string, hasRoot: boolean): ConnectionOptions {
  if (mode === 'verify-full') return {}
  if (mode === 'verify-ca' || hasRoot) return { checkServerIdentity: () => undefined }
  return { rejectUnauthorized: false }
}

function read(name: string, path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    const message = `DATABASE_URL: ${name}=${path}: expected a readable PEM file (${describeError(error)})`
    throw new TapelineError('SETTINGS', message, { fix: 'Correct it in the environment or in .env.' })
  }
}

/** Runs work on a separate connection. @param limitMs for connecting, and for each statement */
export async function onClient<Result>(
  url: string,
  limitMs: number,
  applicationName: string,
  work: (client: Client) => Promise<Result>,
): Promise<Result> {
  const client = new Client({
    ...connectionOptions(url),
    connectionTimeoutMillis: limitMs,
    query_timeout: limitMs,
    application_name: applicationName,
  })
  // The statement reports a broken connection.
  client.on('error', () => {})
  try {
    await client.connect()
    return await work(client)
  } finally {
    await client.end()
  }
}

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

/** Returns the reason for a refused connection; null for other errors. @param where without a password */
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
