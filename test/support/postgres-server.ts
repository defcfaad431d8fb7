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
  // /dev/shm in the changed root is not a memory file system.
  dynamic_shared_memory_type: 'mmap',
  max_connections: '100',
  // TimescaleDB runs one scheduler per database, and tests create many.
  max_worker_processes: '40',
  'timescaledb.max_background_workers': '24',
  timezone: 'UTC',
  log_timezone: 'UTC',
}

/** A running server. */
export interface PostgresServer {
  readonly pid: number
  readonly identity: ProcessIdentity
}

/**
 * Starts a server on a data folder. If its server was killed, PostgreSQL recovers automatically.
 *
 * @param url the server's URL
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
  // A separate process group: Ctrl-C in the terminal must reach only the process that started the
  // server, which stops it in order.
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

/**
 * Fast shutdown; a server that does not exit within 10 s is stopped without a checkpoint, then
 * killed.
 */
export async function stopServer(server: PostgresServer): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT'] as const) {
    if (!signalIfRunning(server.identity, signal)) return
    if (await haveEnded([server.identity], 10_000)) return
  }
  await killServer(server)
}

/** Sends SIGKILL to the postmaster and all its children at once; resolves when they are gone. */
export async function killServer(server: PostgresServer): Promise<void> {
  // Stop the postmaster first, so that it cannot start another child between the listing and the
  // kill.
  signalIfRunning(server.identity, 'SIGSTOP')
  const all = [server.identity, ...descendantsOf(server.pid)]
  for (const identity of all) signalIfRunning(identity, 'SIGKILL')
  if (!(await haveEnded(all, 10_000)))
    throw new Error(`PostgreSQL (pid ${server.pid}) is still running 10 s after SIGKILL`)
}
