import { readFileSync } from 'node:fs'
import type { ConnectionOptions } from 'node:tls'
import { describeError, TapelineError } from '../runtime/errors.ts'

/** Of a connection URL: what `pg` takes, without the parameters that are about TLS, and TLS as libpq means them. */
export interface PostgresConnection {
  readonly connectionString: string
  readonly ssl: ConnectionOptions | false
}

const PARAMETERS = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'sslpassword'] as const

/**
 * The meaning of `sslmode` and the files beside it (PostgreSQL manual, 32.19 "SSL Support"): `disable` is plain text,
 * `require` encrypts and trusts anybody, unless `sslrootcert` is given, which makes it `verify-ca`; `verify-ca` checks
 * who has signed, `verify-full` also the host. Without `sslmode` there is no TLS, unless a file is given: then
 * everything is checked.
 *
 * @throws TapelineError `SETTINGS` when a file cannot be read
 */
export function connectionOptions(url: string): PostgresConnection {
  const parsed = new URL(url)
  const given = Object.fromEntries(PARAMETERS.map((name) => [name, parsed.searchParams.get(name)]))
  const { sslmode, sslrootcert, sslcert, sslkey, sslpassword } = given
  for (const name of PARAMETERS) parsed.searchParams.delete(name)
  const connectionString = parsed.toString()
  const mode = sslmode ?? (sslrootcert === null && sslcert === null ? 'disable' : 'verify-full')
  if (mode === 'disable') return { connectionString, ssl: false }
  const files = {
    // The authorities that Node comes with stand for those of the system.
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
    throw new TapelineError(
      'SETTINGS',
      `DATABASE_URL: ${name}=${path}: expected a PEM file that can be read (${describeError(error)})`,
      { fix: 'Correct it in the environment or in .env.' },
    )
  }
}
