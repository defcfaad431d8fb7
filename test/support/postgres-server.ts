import { spawn } from 'node:child_process'
import { open, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { identify, type ProcessIdentity } from '../../src/sandbox/processes/process-identity.ts'
import type { DataFolder } from './postgres-data.ts'
import { descendantsOf, haveEnded, signalIfRunning } from './process-tree.ts'
import { insideRoot, serverEnvironment, type TimescaleRoot } from './timescaledb-root.ts'
import { waitFor } from './wait-for.ts'

const SERVER_SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  shared_preload_libraries: 'timescaledb',
  'timescaledb.telemetry_level': 'off',
  // The changed root has no /dev/shm of its own that is a memory file system.
  dynamic_shared_memory_type: 'mmap',
  max_connections: '100',
  // One scheduler a database with the extension, and tests make many.
  max_worker_processes: '40',
  'timescaledb.max_background_workers': '24',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

/** A server that answers, until it is stopped. */
export interface PostgresServer {
  readonly pid: number
  readonly identity: ProcessIdentity
}

/**
 * Starts it on a data folder, also on one whose server was killed: PostgreSQL recovers by itself.
 *
 * @param url as which it will answer
 */
export async function startServer(
  root: TimescaleRoot,
  folder: DataFolder,
  port: number,
  url: string,
): Promise<PostgresServer> {
  const logFile = join(folder.outer, 'postgres.log')
  const settings = Object.entries({ ...SERVER_SETTINGS, port: String(port) }).flatMap(([name, value]) => [
    '-c',
    `${name}=${value}`,
  ])
  const [command, ...args] = insideRoot(root, 'postgres', ['-D', `${folder.inner}/data`, ...settings])
  const log = await open(logFile, 'a')
  // A process group of its own: Ctrl-C in the terminal is for whoever started the server, who stops it in order.
  const child = spawn(command, args, {
    env: serverEnvironment(),
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  })
  await log.close()
  let spawnError: Error | undefined
  child.on('error', (error) => {
    spawnError = error
  })
  const identity = child.pid === undefined ? null : identify(child.pid)
  try {
    await waitFor(
      async () => {
        if (spawnError !== undefined || child.exitCode !== null || child.signalCode !== null)
          return 'ended' as const
        return (await answers(url)) ? ('ready' as const) : undefined
      },
      { timeoutMs: 30_000, what: 'PostgreSQL to answer', everyMs: 100 },
    )
    if (
      child.pid === undefined ||
      identity === null ||
      child.exitCode !== null ||
      child.signalCode !== null
    ) {
      throw new Error(`PostgreSQL ended with ${spawnError?.message ?? child.signalCode ?? child.exitCode}`)
    }
    return { pid: child.pid, identity }
  } catch (error) {
    if (identity !== null) signalIfRunning(identity, 'SIGQUIT')
    const lastWords = (await readFile(logFile, 'utf8')).trim().split('\n').slice(-5).join('\n')
    throw new Error(`PostgreSQL did not start. The end of its log:\n${lastWords}`, { cause: error })
  }
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 })
  client.on('error', () => {}) // A connection that breaks while it is tried is no more than "not yet".
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

/** Fast shutdown; a server that does not end within 10 s is stopped without a checkpoint, then killed. */
export async function stopServer(server: PostgresServer): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    if (!signalIfRunning(server.identity, signal)) return
    if (await haveEnded([server.identity], 10_000)) return
  }
  await killServer(server)
}

/** SIGKILL to the postmaster and all its children at once; resolves when they are gone. */
export async function killServer(server: PostgresServer): Promise<void> {
  // The postmaster first stops, so that it cannot start a further child between the listing and the kill.
  signalIfRunning(server.identity, 'SIGSTOP')
  const all = [server.identity, ...descendantsOf(server.pid)]
  for (const identity of all) signalIfRunning(identity, 'SIGKILL')
  if (!(await haveEnded(all, 10_000)))
    throw new Error(`PostgreSQL (pid ${server.pid}) is still there 10 s after SIGKILL`)
}
