import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from '../../src/sandbox/processes/free-ports.ts'
import type { ProcessIdentity } from '../../src/sandbox/processes/process-identity.ts'
import { dataFolder, prepareData, removeAbandonedData } from './postgres-data.ts'
import { killServer, startServer, stopServer } from './postgres-server.ts'
import { ensureTimescaleRoot } from './timescaledb-root.ts'

export interface NativeTimescaleOptions {
  /** The folder for downloads, outside the work tree. */
  readonly cacheDir: string
  readonly onProgress?: (message: string) => void
  /** Default: a free port. */
  readonly port?: number
  /** Data folder inside the changed root. An existing one is kept; without a name data is new. */
  readonly dataName?: string
  /** Keeps the data at the stop, for a later start by name. Default false. */
  readonly keepData?: boolean
}

/** A real PostgreSQL server with TimescaleDB on 127.0.0.1. */
export type NativeTimescale = Exclude<Awaited<ReturnType<typeof startNativeTimescale>>, { skip: string }>

/**
 * Starts PostgreSQL 17 with TimescaleDB natively, with fsync on; installs it into the cache first
 * if needed. It ends with this process, however this process ends.
 *
 * @returns the running server, or why this machine cannot run one
 */
export async function startNativeTimescale(options: NativeTimescaleOptions) {
  const onProgress = options.onProgress ?? (() => {})
  const root = await ensureTimescaleRoot({ cacheDir: options.cacheDir, onProgress })
  if ('skip' in root) return root
  await removeAbandonedData(root)
  const folder = dataFolder(root, options.dataName ?? `run-${randomBytes(6).toString('hex')}`)
  const port = options.port ?? (await freePort())
  const removeData = async () => {
    if (options.keepData !== true) await rm(folder.outer, { recursive: true, force: true })
  }
  let url = ''
  let server: ProcessIdentity
  try {
    const password = await prepareData(root, folder, options.keepData === true)
    url = `postgres://postgres:${password}@127.0.0.1:${port}/postgres`
    server = await startServer(root, folder, url)
  } catch (error) {
    await removeData()
    throw error
  }

  return {
    /** As superuser, database `postgres`; includes the password. */
    url,
    port,
    /** The server's log, removed with the data. */
    logFile: join(folder.outer, 'postgres.log'),
    /** The postmaster's; changes at `restart()`. */
    get pid() {
      return server.pid
    },
    /** Rolls back open transactions, writes a checkpoint, and then removes the data. */
    async stop() {
      await stopServer(server)
      await removeData()
    },
    /** Sends SIGKILL to the whole server at once, like a crash; resolves when it is gone. */
    kill: () => killServer(server),
    /** Restarts the server with the same data and port, stopping it first if it runs. */
    async restart() {
      await stopServer(server)
      server = await startServer(root, folder, url)
    },
  }
}
