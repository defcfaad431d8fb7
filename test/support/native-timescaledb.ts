import { randomBytes } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from '../../src/sandbox/processes/free-ports.ts'
import { dataFolder, prepareData, removeAbandonedData } from './postgres-data.ts'
import { killServer, type PostgresServer, startServer, stopServer } from './postgres-server.ts'
import { ensureTimescaleRoot } from './timescaledb-root.ts'

export interface NativeTimescaleOptions {
  /** The folder downloads are kept in, outside the work tree. */
  readonly cacheDir: string
  readonly onProgress?: (message: string) => void
  /** A free one when not given. */
  readonly port?: number
  /**
   * Name of the data folder, which lies inside the changed root. A name that is there already is started as it
   * is; without a name the data is fresh.
   */
  readonly dataName?: string
  /** Leaves the data when stopped, to be started again by name. Default false. */
  readonly keepData?: boolean
}

/** A real PostgreSQL server with TimescaleDB on 127.0.0.1. */
export interface NativeTimescale {
  /** As superuser, database `postgres`; the password is in it. */
  readonly url: string
  readonly port: number
  /** The postmaster's; another one after `restart()`. */
  readonly pid: number
  /** The server's log, gone with the data. */
  readonly logFile: string
  /** Fast shutdown: open transactions are rolled back, a checkpoint is written. Then the data is removed. */
  stop(): Promise<void>
  /** SIGKILL to the whole server at once, as a crash of the machine would; resolves when all of it is gone. */
  kill(): Promise<void>
  /** Starts the same data on the same port again, stopping the server first where it still runs. */
  restart(): Promise<void>
}

/**
 * Starts PostgreSQL 17 with TimescaleDB natively, fsync on, installing it into the cache first where needed.
 * It ends with this process, however this process ends.
 *
 * @returns the running server, or why this machine cannot have one
 */
export async function startNativeTimescale(
  options: NativeTimescaleOptions,
): Promise<NativeTimescale | { skip: string }> {
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
  let server: PostgresServer
  try {
    const password = await prepareData(root, folder, options.keepData === true)
    url = `postgres://postgres:${password}@127.0.0.1:${port}/postgres`
    server = await startServer(root, folder, port, url)
  } catch (error) {
    await removeData()
    throw error
  }

  return {
    url,
    port,
    logFile: join(folder.outer, 'postgres.log'),
    get pid() {
      return server.pid
    },
    async stop() {
      await stopServer(server)
      await removeData()
    },
    kill: () => killServer(server),
    async restart() {
      await stopServer(server)
      server = await startServer(root, folder, port, url)
    },
  }
}
