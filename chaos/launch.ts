import { join } from 'node:path'
import { startEmbeddedDatabase } from '../src/sandbox/embedded-timescaledb/embedded-database.ts'
import { type RunningProcess, spawnNode } from '../src/sandbox/processes/child-process.ts'
import { COMMAND_LINE } from '../src/sandbox/processes/files.ts'
import { identify } from '../src/sandbox/processes/process-identity.ts'
import { type NativeTimescale, startNativeTimescale } from '../test/support/native-timescaledb.ts'
import { descendantsOf, haveEnded, signalIfRunning } from '../test/support/process-tree.ts'
import type { PartProcess } from './part.ts'

/** Time for a shutdown; a fast shutdown of the database writes a checkpoint. */
const STOP_LIMIT_MS = 20_000
/**
 * A broker first moves its partitions to others. The last one of a cluster waits for a controller
 * that is already gone.
 */
const BROKER_STOP_LIMIT_MS = 30_000

/** Starts a service in a separate process, as `bin/tapeline COMMAND` does. */
export async function launchService(
  command: 'ingest' | 'consume' | 'archive',
  env: NodeJS.ProcessEnv,
  logFile: string,
): Promise<PartProcess> {
  const { running } = await spawnNode({ script: COMMAND_LINE, args: [command], env, logFile })
  return ofGroup(running)
}

/** @param start starts the broker with its previous data and port */
export async function launchBroker(start: () => Promise<RunningProcess>): Promise<PartProcess> {
  const running = await start()
  return {
    ...ofGroup(running),
    async stop() {
      const broker = identify(running.pid)
      if (broker === null || !signalIfRunning(broker, 'SIGTERM')) return running.exited
      if (!(await haveEnded([broker], BROKER_STOP_LIMIT_MS))) running.kill()
      return running.exited
    },
  }
}

/** Starts the embedded database, on a fixed port. */
export async function launchEmbedded(
  options: { folder: string; port: number; logFile: string },
  signal: AbortSignal,
): Promise<PartProcess & { readonly url: string }> {
  const { folder, port, logFile } = options
  const server = await startEmbeddedDatabase({ dataDir: join(folder, 'embedded'), port, logFile, signal })
  return { ...ofGroup(server), url: server.url }
}

export interface NativeDatabase {
  readonly server: NativeTimescale
  /** Restarts it if it is down. */
  launch(): Promise<PartProcess>
}

/** @returns the running native database, or why this machine cannot run it */
export async function openNative(
  cacheDir: string,
  onProgress: (text: string) => void,
): Promise<NativeDatabase | { skip: string }> {
  const server = await startNativeTimescale({ cacheDir, onProgress })
  if ('skip' in server) return server
  let isFirst = true
  return {
    server,
    async launch() {
      if (!isFirst) await server.restart()
      isFirst = false
      const { pid } = server
      return {
        pid,
        kill: () => server.kill(),
        async stop() {
          // Not the server's stop(), which removes the data.
          const postmaster = identify(pid)
          if (postmaster === null || !signalIfRunning(postmaster, 'SIGINT')) return null
          if (!(await haveEnded([postmaster], STOP_LIMIT_MS))) await server.kill()
          return null
        },
        signal(signal) {
          const postmaster = identify(pid)
          // Signal the postmaster first: paused, it starts no more processes.
          for (const one of [...(postmaster === null ? [] : [postmaster]), ...descendantsOf(pid)])
            signalIfRunning(one, signal)
        },
      }
    },
  }
}

/** A process group with its leader. */
function ofGroup(running: RunningProcess): PartProcess {
  return {
    pid: running.pid,
    async kill() {
      running.kill()
      await running.exited
    },
    stop: () => running.stop(),
    signal(signal) {
      const leader = identify(running.pid)
      if (leader !== null) signalIfRunning(leader, signal)
    },
  }
}
