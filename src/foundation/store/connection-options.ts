import { readFileSync } from 'node:fs'
import type { ConnectionOptions } from 'node:tls'
import { describeError, TapelineError } from '../runtime/errors.ts'

/** A connection URL without its TLS parameters, for `pg`, and TLS with libpq's meaning. */
export interface PostgresConnection {
  readonly connectionString: string
  readonly ssl: ConnectionOptions | false
}

const PARAMETERS = ['sslmode', 'sslrootcert', 'sslcert', 'sslkey', 'sslpassword'] as const

/**
 * Returns options with the meaning of `sslmode` and its files (PostgreSQL manual, 32.19 "SSL
 * Support"). `disable` is plaintext. `require` encrypts and trusts any certificate, but becomes
 * `verify-ca` with `sslrootcert`. `verify-ca` verifies the signer, `verify-full` also the host.
 * Without `sslmode` there is no TLS, unless a file is given: then everything is verified.
 *
 * @throws TapelineError `SETTINGS` if a file is unreadable
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
    throw new TapelineError(
      'SETTINGS',
      `DATABASE_URL: ${name}=${path}: expected a readable PEM file (${describeError(error)})`,
      { fix: 'Correct it in the environment or in .env.' },
    )
  }
}
