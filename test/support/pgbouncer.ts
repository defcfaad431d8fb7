import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from '../../src/sandbox/processes/free-ports.ts'
import { dataFolder, makeFolder, writeOwned } from './postgres-data.ts'
import { startInRoot } from './postgres-server.ts'
import { haveEnded, signalIfRunning } from './process-tree.ts'
import { requireTimescaleRoot } from './timescaledb-root.ts'

/** Fewer than the consumer's connections, so that sessions are shared. */
const SESSIONS = 2

/**
 * Starts PgBouncer in transaction mode in front of a database on the native server.
 *
 * @param serverUrl with user and password
 * @returns the same URL through PgBouncer
 */
export async function startPgBouncer(serverUrl: string) {
  const root = await requireTimescaleRoot()
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
  const removeFolder = () => rm(folder.outer, { recursive: true, force: true })
  try {
    const args = [`${folder.inner}/pgbouncer.ini`]
    const identity = await startInRoot(root, folder, '/usr/sbin/pgbouncer', args, url.href)
    const stop = async () => {
      signalIfRunning(identity, 'SIGQUIT')
      if (!(await haveEnded([identity], 5000))) signalIfRunning(identity, 'SIGKILL')
      await removeFolder()
    }
    return { url: url.href, stop }
  } catch (error) {
    await removeFolder()
    throw error
  }
}
