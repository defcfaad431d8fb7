import assert from 'node:assert/strict'
import { chmod, chown, copyFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createAuthority, type KeyPair, type TestAuthority } from './support/certificates.ts'
import { type NativeTimescale, startNativeTimescale } from './support/native-timescaledb.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess } from './support/services.ts'
import { runStatements } from './support/statements.ts'
import { until, within } from './support/wait-for.ts'

const CACHE = process.env['TAPELINE_CACHE_DIR'] ?? join(homedir(), '.cache', 'tapeline')
const PASSWORD = 'staple-battery-horse'
/** Users accepted only over TLS, the second with a certificate and without a password. */
const HBA = `
hostssl all tls_only 127.0.0.1/32 scram-sha-256
hostssl all certificate_only 127.0.0.1/32 cert
`

let folder: string
let authority: TestAuthority
let other: TestAuthority
let client: KeyPair
/** Undefined if this machine cannot run a native server; then the tests are skipped. */
let server: NativeTimescale | undefined
let skipped = ''

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'store-tls-'))
  authority = await createAuthority(folder, 'ca')
  other = await createAuthority(folder, 'other')
  client = await authority.sign('certificate_only', 'DNS:client.example')
  const started = await within(60_000, 'PostgreSQL', () => startNativeTimescale({ cacheDir: CACHE }))
  if ('skip' in started) {
    skipped = started.skip
    return
  }
  server = started
  await withTls(started, await authority.sign('localhost', 'DNS:localhost'))
})

after(async () => {
  await server?.stop()
  await rm(folder, { recursive: true, force: true })
})

/** Configures the server to present a certificate, and to require those of the authority. */
async function withTls({ url, logFile }: NativeTimescale, pair: KeyPair): Promise<void> {
  const data = join(dirname(logFile), 'data')
  const { uid, gid } = await stat(data)
  for (const [from, name] of [
    [pair.cert, 'server.crt'],
    [pair.key, 'server.key'],
    [authority.cert, 'root.crt'],
  ] as const) {
    const file = join(data, name)
    await copyFile(from, file)
    await chown(file, uid, gid)
    await chmod(file, 0o600)
  }
  const hba = join(data, 'pg_hba.conf')
  const rules = await readFile(hba, 'utf8')
  if (!rules.startsWith(HBA)) {
    // The first matching rule decides; without TLS these users have none.
    const never = 'hostnossl all tls_only,certificate_only 127.0.0.1/32 reject\n'
    await writeFile(hba, HBA + never + rules)
  }
  const database = openPostgres({ url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  try {
    for (const user of ['tls_only', 'certificate_only'])
      await database.query(
        `DO $$ BEGIN CREATE ROLE ${user} LOGIN SUPERUSER PASSWORD '${PASSWORD}'; EXCEPTION WHEN duplicate_object THEN END $$`,
      )
    for (const [name, value] of [
      ['ssl', 'on'],
      ['ssl_ca_file', 'root.crt'],
    ])
      await runStatements(url, `ALTER SYSTEM SET ${name} = '${value}'`)
    await database.query('SELECT pg_reload_conf()')
  } finally {
    await database.close()
  }
}

interface Login {
  readonly host?: string
  readonly user?: string
  readonly password?: string
  readonly parameters?: Readonly<Record<string, string>>
}

function urlFor({
  host = 'localhost',
  user = 'tls_only',
  password = PASSWORD,
  parameters = {},
}: Login): string {
  const login = password === '' ? user : `${user}:${password}`
  return `postgres://${login}@${host}:${server?.port}/postgres?${new URLSearchParams(parameters)}`
}

/** Whether the connection is encrypted according to the server. */
async function encrypted(login: Login): Promise<boolean | undefined> {
  const url = urlFor(login)
  const database = openPostgres({ url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  try {
    const { rows } = await within(10_000, 'an answer', () =>
      database.query<{ ssl: boolean }>('SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'),
    )
    return rows[0]?.ssl
  } finally {
    await database.close()
  }
}

const superuser = (): Login => ({ user: 'postgres', password: new URL(server?.url ?? '').password })

/** The server takes a moment to reload its files. */
async function settled(login: Login): Promise<void> {
  await until('the server to show its certificate', () => encrypted(login), 10_000)
}

test('connects in plain text with sslmode=disable, and encrypted in every other mode', async (t) => {
  if (server === undefined) return t.skip(skipped)
  await settled({ parameters: { sslmode: 'require' } })
  assert.equal(await encrypted({ ...superuser(), parameters: { sslmode: 'disable' } }), false)
  assert.equal(await encrypted({ ...superuser() }), false)
  assert.equal(await encrypted({ parameters: { sslmode: 'require' } }), true)
  const sslrootcert = authority.cert
  for (const sslmode of ['require', 'verify-ca', 'verify-full'])
    assert.equal(await encrypted({ parameters: { sslmode, sslrootcert } }), true, sslmode)
  assert.equal(await encrypted({ parameters: { sslrootcert } }), true)
})

test('refuses a server certificate of another authority, in every mode that checks it', async (t) => {
  if (server === undefined) return t.skip(skipped)
  await settled({ parameters: { sslmode: 'require' } })
  const untrusted = { code: 'ACCESS', message: /not signed by a trusted authority/, fix: /sslrootcert=FILE/ }
  for (const parameters of [
    { sslmode: 'require', sslrootcert: other.cert },
    { sslmode: 'verify-ca', sslrootcert: other.cert },
    { sslmode: 'verify-full', sslrootcert: other.cert },
    { sslmode: 'verify-full' },
  ])
    await assert.rejects(encrypted({ parameters }), untrusted, JSON.stringify(parameters))
})

test('verify-full checks the exact requested host or address, and verify-ca does not', async (t) => {
  if (server === undefined) return t.skip(skipped)
  const sslrootcert = authority.cert
  const full = { sslmode: 'verify-full', sslrootcert }
  const otherHost = {
    code: 'ACCESS',
    message: /certificate of the database is for another host/,
    fix: /host name/,
  }
  await settled({ parameters: full })
  await assert.rejects(encrypted({ host: '127.0.0.1', parameters: full }), otherHost)
  assert.equal(
    await encrypted({ host: '127.0.0.1', parameters: { sslmode: 'verify-ca', sslrootcert } }),
    true,
  )
  await withTls(server, await authority.sign('address', 'IP:127.0.0.1'))
  await settled({ host: '127.0.0.1', parameters: full })
  await assert.rejects(encrypted({ host: 'localhost', parameters: full }), otherHost)
  await withTls(server, await authority.sign('localhost', 'DNS:localhost'))
  await settled({ parameters: full })
})

test('logs in with a certificate instead of a password', async (t) => {
  if (server === undefined) return t.skip(skipped)
  const shared = { sslmode: 'verify-full', sslrootcert: authority.cert }
  const parameters = { ...shared, sslcert: client.cert, sslkey: client.key }
  await settled({ user: 'certificate_only', password: '', parameters })
  await assert.rejects(encrypted({ user: 'certificate_only', parameters: shared }), {
    code: 'ACCESS',
    message: /refuses the login/,
    fix: /sslcert and sslkey/,
  })
})

test('names a missing file', (t) => {
  if (server === undefined) return t.skip(skipped)
  const url = urlFor({ parameters: { sslmode: 'verify-ca', sslrootcert: '/nowhere/ca.pem' } })
  assert.throws(() => openPostgres({ url, poolMin: 0, poolMax: 1, applicationName: 'test' }), {
    code: 'SETTINGS',
    message: /sslrootcert=\/nowhere\/ca\.pem: expected a readable PEM file/,
  })
})

const COMMANDS: Record<
  string,
  (env: Readonly<Record<string, string>>) => Promise<ReturnType<typeof startTapeline>>
> = {
  consume: async (env) => (await startConsumerProcess({ ...env, KAFKA_BROKERS: '127.0.0.1:1' })).command,
  migrate: async (env) => startTapeline(['migrate'], { env }),
  verify: async (env) => startTapeline(['verify'], { env }),
}

for (const [name, start] of Object.entries(COMMANDS)) {
  test(`${name} ends with one line about the database's refusal, without the password`, async (t) => {
    if (server === undefined) return t.skip(skipped)
    const refusals: Array<[Login, RegExp]> = [
      [{ parameters: { sslmode: 'disable' } }, /refuses the login.*pg_hba\.conf/],
      [{ parameters: { sslmode: 'verify-full' } }, /not signed by a trusted authority/],
      [{ password: 'wrong-staple', parameters: { sslmode: 'require' } }, /refuses the login.*password/],
    ]
    // One case shows that a command reports it; the service tests each kind of refusal.
    for (const [login, line] of name === 'consume' ? refusals : refusals.slice(-1)) {
      await using command = await start({ DATABASE_URL: urlFor(login), LOG_LEVEL: 'debug' })
      await command.assertExit(1, 20_000)
      assert.match(command.output(), line)
      assert.match(command.output(), /DATABASE_URL/)
      assert.doesNotMatch(command.output(), /staple/)
    }
  })
}
