import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { buffer, text } from 'node:stream/consumers'
import { runStatements } from './statements.ts'
import { insideRoot, requireTimescaleRoot, serverEnvironment } from './timescaledb-root.ts'

/** Runs `pg_dump` of a database on the native server, in its custom format. */
export function dumpDatabase(url: string): Promise<Buffer> {
  return runTool('pg_dump', ['--format=custom', '--no-owner', url], Buffer.alloc(0))
}

/**
 * Creates a database next to `url`'s and restores a dump, as described in TimescaleDB's manual.
 *
 * @returns its URL
 */
export async function restoreDatabase(url: string, name: string, dump: Buffer): Promise<string> {
  const restored = new URL(url)
  restored.pathname = `/${name}`
  await runStatements(url, `CREATE DATABASE ${name}`)
  await runStatements(restored.href, 'CREATE EXTENSION timescaledb', 'SELECT timescaledb_pre_restore()')
  await runTool('pg_restore', ['--no-owner', `--dbname=${restored.href}`], dump)
  await runStatements(restored.href, 'SELECT timescaledb_post_restore()')
  return restored.href
}

export function dropDatabase(url: string, name: string): Promise<void> {
  return runStatements(url, `DROP DATABASE IF EXISTS ${name} WITH (FORCE)`)
}

async function runTool(program: string, args: string[], input: Buffer): Promise<Buffer> {
  const [command, ...rest] = insideRoot(await requireTimescaleRoot(), program, args)
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
