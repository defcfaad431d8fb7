import { homedir } from 'node:os'
import { join } from 'node:path'
import { describeError, TapelineError } from '../../src/foundation/runtime/errors.ts'
import { Closers } from '../../src/foundation/telemetry/service.ts'
import { beginTestRun } from './test-run.ts'

/** Outside the work tree, so that a fresh clone can use earlier downloads. */
export const CACHE_DIRECTORY =
  process.env['TAPELINE_CACHE_DIR'] ??
  join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'tapeline')

/** Everything has been stopped or killed by then, so remaining processes are killed at once. */
const GRACE_MS = 1000

/** Resources of a run. */
export interface RunPlace {
  /** Folder for all files. */
  readonly folder: string
  readonly closers: Closers
  readonly say: (text: string) => void
  readonly signal: AbortSignal
}

/**
 * Runs work that starts real servers, and ensures that it ends and cleans up: after a signal, a
 * time limit, a closed terminal or an uncaught error. The process changes its working directory to
 * the run's folder, so that no other `.env` reaches a service.
 *
 * @param work returns the exit code
 * @param onFailure called after a failure has been reported
 * @returns the exit code: that of the work, of a TapelineError, or 1
 */
export async function boundedRun(
  limitMs: number,
  work: (place: RunPlace) => Promise<number>,
  onFailure: () => void = () => {},
): Promise<number> {
  const startedMs = performance.now()
  const say = (text: string) =>
    console.log(`[${((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)} s] ${text}`)
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => stop.abort(new Error(`stopped by ${signal}`)))
  // Events that would end this process at once must not leave the others running.
  process.on('uncaughtException', (error) => stop.abort(error))
  process.stdout.on('error', (error) => stop.abort(error))
  const limit = setTimeout(
    () => stop.abort(new Error(`not finished after ${Math.round(limitMs / 60_000)} minutes`)),
    limitMs,
  )
  const run = await beginTestRun(say)
  process.chdir(run.folder)
  const closers = new Closers()
  const aborted = new Promise<never>((_, reject) => {
    stop.signal.addEventListener('abort', () => reject(stop.signal.reason), { once: true })
  })
  let exitCode = 1
  try {
    exitCode = await Promise.race([work({ folder: run.folder, closers, say, signal: stop.signal }), aborted])
  } catch (error) {
    console.error(`The run was not completed: ${describeError(error)}`)
    if (error instanceof TapelineError) {
      exitCode = error.exitCode
      console.error(error.fix)
    } else if (!stop.signal.aborted) console.error(error)
    onFailure()
  } finally {
    clearTimeout(limit)
    stop.abort(new Error('the run is over'))
    await closers.closeAll().catch((error: unknown) => {
      exitCode = 1
      console.error(describeError(error))
    })
    for (const command of await run.end(GRACE_MS)) {
      exitCode = 1
      console.error(`A process was left running; ending it now: ${command}`)
    }
  }
  return exitCode
}
