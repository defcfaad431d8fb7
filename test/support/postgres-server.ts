import { spawn } from 'node:child_process'
import { open, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import pg from 'pg'
import { identify, type ProcessIdentity } from '../../src/sandbox/processes/process-identity.ts'
import type { DataFolder } from './postgres-data.ts'
import { descendantsOf, haveEnded, signalIfRunning } from './process-tree.ts'
import { insideRoot, serverEnvironment, type TimescaleRoot } from './timescaledb-root.ts'
import { until } from './wait-for.ts'

const SERVER_SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  shared_preload_libraries: 'timescaledb',
  'timescaledb.telemetry_level': 'off',
  // /dev/shm in the changed root is not a memory file system.
  dynamic_shared_memory_type: 'mmap',
  max_connections: '100',
  // TimescaleDB runs one scheduler per database, and tests create many.
  max_worker_processes: '40',
  'timescaledb.max_background_workers': '24',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

/** Starts PostgreSQL on a data folder. If its server was killed, it recovers automatically. */
export function startServer(root: TimescaleRoot, folder: DataFolder, url: string): Promise<ProcessIdentity> {
  const settings = { ...SERVER_SETTINGS, port: new URL(url).port }
  const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
  return startInRoot(root, folder, 'postgres', ['-D', `${folder.inner}/data`, ...args], url)
}

/** Starts a server in the root, with its log in the folder, and waits until it answers at the URL. */
export async function startInRoot(
  root: TimescaleRoot,
  folder: DataFolder,
  program: string,
  args: string[],
  url: string,
): Promise<ProcessIdentity> {
  const name = basename(program)
  const logFile = join(folder.outer, `${name}.log`)
  const [command, ...rest] = insideRoot(root, program, args)
  const log = await open(logFile, 'a')
  // A separate process group: Ctrl-C in the terminal must reach only the process that started the
  // server, which stops it in order.
  const child = spawn(command, rest, {
    env: serverEnvironment(),
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  })
  await log.close()
  let spawnError: string | null = null
  child.on('error', (error) => {
    spawnError = error.message
  })
  const endedWith = () => spawnError ?? child.signalCode ?? child.exitCode
  const identity = child.pid === undefined ? null : identify(child.pid)
  try {
    await until(`${name} to answer`, async () => endedWith() !== null || (await answers(url)))
    if (identity === null || endedWith() !== null) throw new Error(`${name} ended with ${endedWith()}`)
    return identity
  } catch (error) {
    if (identity !== null) signalIfRunning(identity, 'SIGQUIT')
    const lastWords = (await readFile(logFile, 'utf8')).trim().split('\n').slice(-5).join('\n')
    throw new Error(`${name} did not start. The end of its log:\n${lastWords}`, { cause: error })
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 })
  client.on('error', () => {}) // A failed connection attempt only means "not yet".
  try {
    await client.connect()
    await client.query('SELECT 1')
    return true
  } catch {
    return false
  } finally {
    await client.end()
  }
}

/** Fast shutdown; after 10 s without a checkpoint, and then by SIGKILL. */
export async function stopServer(server: ProcessIdentity): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    if (!signalIfRunning(server, signal)) return
    if (await haveEnded([server], 10_000)) return
  }
  await killServer(server)
}

/** Sends SIGKILL to the postmaster and all its children at once; resolves when they are gone. */
export async function killServer(server: ProcessIdentity): Promise<void> {
  // Stop the postmaster first, so that it cannot start another child between the listing and the
  // kill.
  signalIfRunning(server, 'SIGSTOP')
  const all = [server, ...descendantsOf(server.pid)]
  for (const identity of all) signalIfRunning(identity, 'SIGKILL')
  if (!(await haveEnded(all, 10_000)))
    throw new Error(`PostgreSQL (pid ${server.pid}) is still running 10 s after SIGKILL`)
}
