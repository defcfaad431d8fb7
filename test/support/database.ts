import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { cp, mkdtemp, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { codeOf } from '../../src/foundation/runtime/errors.ts'
import { migrate } from '../../src/foundation/store/migrate.ts'
import { openPostgres } from '../../src/foundation/store/postgres.ts'
import { startEmbeddedDatabase } from '../../src/sandbox/embedded-timescaledb/embedded-database.ts'
import { startPgBouncer } from './pgbouncer.ts'
import { runStatements } from './statements.ts'

export const DATABASE_VARIABLE = 'TAPELINE_TEST_DATABASE_URL'
/** Why there is no native server, if there is none. */
export const DATABASE_SKIP_VARIABLE = 'TAPELINE_TEST_DATABASE_SKIP'

/** If `pgbouncer`, tests that choose no kind use native databases in transaction mode. */
export const POOLER_VARIABLE = 'TAPELINE_TEST_POOLER'

/** Where the embedded databases of a run find one to copy. */
export const TEMPLATE_VARIABLE = 'TAPELINE_TEST_EMBEDDED_TEMPLATE'

/** PostgreSQL as a server with separate processes, or in WebAssembly as `up` starts it. */
export type DatabaseKind = 'native' | 'embedded'

/** An empty database for one test, with the extension `timescaledb`. */
export interface TestDatabase {
  readonly kind: DatabaseKind
  /** For `DATABASE_URL`, with a superuser. */
  readonly url: string
  /** Ends open connections, and drops the database. */
  drop(): Promise<void>
}

/**
 * Both kinds, for tests of each: `for (const { name, ...options } of databaseKinds()) test(title,
 * options, …)`. `skip` says why this machine or run cannot provide a kind.
 */
export function databaseKinds(): Array<{ name: DatabaseKind; skip?: string }> {
  if ((process.env[DATABASE_VARIABLE] ?? '') !== '') return [{ name: 'native' }, { name: 'embedded' }]
  const reason =
    process.env[DATABASE_SKIP_VARIABLE] ?? 'run this file through: npm test -- <part of its name>'
  return [{ name: 'native', skip: `no native TimescaleDB: ${reason}` }, { name: 'embedded' }]
}

/** @param kind default: native if this machine has it */
export function createTestDatabase(kind?: DatabaseKind): Promise<TestDatabase> {
  const native = process.env[DATABASE_VARIABLE] ?? ''
  if (kind === 'embedded' || (kind === undefined && native === '')) return createEmbedded()
  if (native === '') throw new Error(databaseKinds()[0]?.skip)
  return kind === undefined && process.env[POOLER_VARIABLE] === 'pgbouncer'
    ? createPooled(native)
    : createNative(native)
}

export type OpenDatabase = Awaited<ReturnType<typeof openTestDatabase>>

/** A test's database with a pool. @param tables whether to create the tables, as `tapeline migrate` does */
export async function openTestDatabase(tables: 'migrated' | 'empty', kind?: DatabaseKind) {
  const server = await createTestDatabase(kind)
  const database = openPostgres({ url: server.url, poolMin: 0, poolMax: 4, applicationName: 'test' })
  if (tables === 'migrated') await migrate(database)
  return {
    kind: server.kind,
    url: server.url,
    database,
    async [Symbol.asyncDispose]() {
      await database.close()
      await server.drop()
    },
  }
}

/** Gives a suite a database, from before its first test until after its last. */
export function databaseOfSuite(
  tables: 'migrated' | 'empty',
  kind?: DatabaseKind,
): Pick<OpenDatabase, 'url' | 'database'> {
  let open: OpenDatabase | undefined
  before(async () => {
    open = await openTestDatabase(tables, kind)
  })
  after(() => open?.[Symbol.asyncDispose]())
  const opened = () => open ?? assert.fail('The suite has no database yet')
  return {
    get url() {
      return opened().url
    },
    get database() {
      return opened().database
    },
  }
}

async function createNative(serverUrl: string): Promise<TestDatabase> {
  const name = `t_${randomBytes(6).toString('hex')}`
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  await runStatements(serverUrl, `CREATE DATABASE ${name}`)
  await runStatements(url.href, 'CREATE EXTENSION timescaledb')
  return {
    kind: 'native',
    url: url.href,
    async drop() {
      await runStatements(serverUrl, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
    },
  }
}

async function createPooled(serverUrl: string): Promise<TestDatabase> {
  const direct = await createNative(serverUrl)
  try {
    const pooler = await startPgBouncer(direct.url)
    return {
      kind: 'native',
      url: pooler.url,
      async drop() {
        await pooler.stop()
        await direct.drop()
      },
    }
  } catch (error) {
    await direct.drop()
    throw error
  }
}

/** A separate server: all connections share one backend, and tests must not wait for each other. */
async function createEmbedded(): Promise<TestDatabase> {
  const folder = await mkdtemp(join(tmpdir(), 'embedded-'))
  const remove = () => rm(folder, { recursive: true, force: true })
  try {
    const [dataDir, logFile] = [join(folder, 'data'), join(folder, 'database.log')]
    const template = process.env[TEMPLATE_VARIABLE]
    if (template !== undefined) await cp(await templateIn(template), dataDir, { recursive: true })
    const server = await startEmbeddedDatabase({ dataDir, port: 0, logFile })
    await runStatements(server.url, 'CREATE EXTENSION IF NOT EXISTS timescaledb')
    return {
      kind: 'embedded',
      url: server.url,
      async drop() {
        await server.stop()
        await remove()
      },
    }
  } catch (error) {
    await remove()
    throw error
  }
}

/**
 * Returns the data directory of a stopped embedded server with the extension; creates it if the run
 * has none yet. A copy of it starts with a quarter of the work of a new one.
 */
async function templateIn(folder: string): Promise<string> {
  const shared = join(folder, 'data')
  if (existsSync(shared)) return shared
  const own = await mkdtemp(`${folder}-`)
  const dataDir = join(own, 'data')
  const server = await startEmbeddedDatabase({ dataDir, port: 0, logFile: join(own, 'database.log') })
  await runStatements(server.url, 'CREATE EXTENSION timescaledb')
  await server.stop()
  try {
    await rename(own, folder)
    return shared
  } catch (error) {
    // Another process of the run was faster.
    if (codeOf(error) !== 'ENOTEMPTY') throw error
    return dataDir
  }
}
