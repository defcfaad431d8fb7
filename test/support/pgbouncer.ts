import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { open, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../../src/sandbox/processes/free-ports.ts'
import { identify } from '../../src/sandbox/processes/process-identity.ts'
import { dataFolder, makeFolder, writeOwned } from './postgres-data.ts'
import { haveEnded, signalIfRunning } from './process-tree.ts'
import { runStatements } from './statements.ts'
import { ensureTimescaleRoot, insideRoot, serverEnvironment } from './timescaledb-root.ts'
import { waitFor } from './wait-for.ts'

/** PgBouncer in transaction mode in front of a server, with its default settings. */
export interface PgBouncer {
  /** The server's URL, through PgBouncer. */
  readonly url: string
  stop(): Promise<void>
}

/** Fewer than the consumer's connections, so that sessions are shared. */
const SESSIONS = 2

/** @param serverUrl of a database on the native server, with user and password */
export async function startPgBouncer(serverUrl: string): Promise<PgBouncer> {
  const root = await ensureTimescaleRoot({
    cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? tmpdir(),
    onProgress: () => {},
  })
  if ('skip' in root) throw new Error(root.skip)
  const folder = dataFolder(root, `pgbouncer-${randomBytes(6).toString('hex')}`)
  const target = new URL(serverUrl)
  const url = new URL(serverUrl)
  url.port = String(await freePort())
  await makeFolder(root, folder, false)
  await writeOwned(
    root,
    join(folder.outer, 'pgbouncer.ini'),
    `[databases]
* = host=${target.hostname} port=${target.port} user=${target.username} password=${target.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${url.port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = ${SESSIONS}
`,
  )
  const logFile = join(folder.outer, 'pgbouncer.log')
  const log = await open(logFile, 'a')
  const [command, ...args] = insideRoot(root, '/usr/sbin/pgbouncer', [`${folder.inner}/pgbouncer.ini`])
  const child = spawn(command, args, {
    env: serverEnvironment(),
    stdio: ['ignore', log.fd, log.fd],
    detached: true,
  })
  await log.close()
  // A program that failed to start does not answer either.
  child.on('error', () => {})
  const identity = child.pid === undefined ? null : identify(child.pid)
  const stop = async () => {
    if (identity !== null) {
      signalIfRunning(identity, 'SIGQUIT')
      if (!(await haveEnded([identity], 5000))) signalIfRunning(identity, 'SIGKILL')
    }
    await rm(folder.outer, { recursive: true, force: true })
  }
  try {
    await waitFor(() => runStatements(url.href, 'SELECT 1').then(() => true), {
      timeoutMs: 20_000,
      what: 'PgBouncer to answer',
    })
  } catch (error) {
    const said = await readFile(logFile, 'utf8')
    await stop()
    throw new Error(`PgBouncer did not start. Its log:\n${said}`, { cause: error })
  }
  return { url: url.href, stop }
}
