import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { buffer, text } from 'node:stream/consumers'
import pg from 'pg'
import { ensureTimescaleRoot, insideRoot, serverEnvironment } from './timescaledb-root.ts'

/** What `pg_dump` makes of a database on the native server, in its custom format. */
export function dumpDatabase(url: string): Promise<Buffer> {
  return runTool('pg_dump', ['--format=custom', '--no-owner', url], Buffer.alloc(0))
}

/**
 * A new database beside `url`'s, restored from a dump the way TimescaleDB's manual says.
 *
 * @returns its URL
 */
export async function restoreDatabase(url: string, name: string, dump: Buffer): Promise<string> {
  const restored = new URL(url)
  restored.pathname = `/${name}`
  await query(url, `CREATE DATABASE ${name}`)
  await query(restored.href, 'CREATE EXTENSION timescaledb', 'SELECT timescaledb_pre_restore()')
  await runTool('pg_restore', ['--no-owner', `--dbname=${restored.href}`], dump)
  await query(restored.href, 'SELECT timescaledb_post_restore()')
  return restored.href
}

export function dropDatabase(url: string, name: string): Promise<void> {
  return query(url, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
}

async function query(url: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 10_000,
    query_timeout: 30_000,
  })
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}

async function runTool(program: string, args: string[], input: Buffer): Promise<Buffer> {
  const root = await ensureTimescaleRoot({
    cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? '',
    onProgress: () => {},
  })
  if ('skip' in root) throw new Error(root.skip)
  const [command, ...rest] = insideRoot(root, program, args)
  const child = spawn(command, rest, { env: serverEnvironment(), timeout: 60_000 })
  child.stdin.end(input)
  const [output, said, [code]] = await Promise.all([
    buffer(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ])
  if (code !== 0) throw new Error(`${program} ended with ${code}: ${said}`)
  return output
}
