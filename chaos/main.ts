/**
 * `npm run chaos`: the whole pipeline under load, broken at random from a seed, and the proof that nothing was lost. Exit
 * code 0 when everything holds, 1 when not, 2 for a wrong command line. See docs/chaos.md.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { describeError, TapelineError } from '../src/errors.ts'
import { Closers } from '../src/telemetry/closers.ts'
import { beginTestRun } from '../test/support/test-run.ts'
import { type ChaosOptions, commandOf, parseOptions } from './options.ts'
import { renderResult } from './report.ts'
import { runChaos } from './run.ts'

/** For the start, the stop and the checks, beside the time of faults and the wait for quiet. */
const REST_OF_RUN_MS = 15 * 60_000
/** Everything has been stopped or killed by then: what still runs is ended at once. */
const GRACE_MS = 1000

const startedMs = performance.now()

async function main(given: ChaosOptions): Promise<number> {
  const options = { ...given, logsDir: given.logsDir === null ? null : resolve(given.logsDir) }
  const jsonFile = options.jsonFile === null ? null : resolve(options.jsonFile)
  say(`seed ${options.seed}; again: ${commandOf(options)}`)
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => stop.abort(new Error(`stopped by ${signal}`)))
  // What would end this process at once must not leave the others behind.
  process.on('uncaughtException', (error) => stop.abort(error))
  process.stdout.on('error', (error) => stop.abort(error))
  const limitMs = options.forMs + options.quietMs + REST_OF_RUN_MS
  const limit = setTimeout(
    () => stop.abort(new Error(`not over after ${Math.round(limitMs / 60_000)} minutes`)),
    limitMs,
  )
  const run = await beginTestRun(say)
  // No .env of the folder that this was started from may reach a service.
  process.chdir(run.folder)
  const closers = new Closers()
  const aborted = new Promise<never>((_, reject) => {
    stop.signal.addEventListener('abort', () => reject(stop.signal.reason), { once: true })
  })
  let exitCode = 1
  try {
    const place = { folder: run.folder, closers, say, signal: stop.signal }
    const result = await Promise.race([runChaos(options, place), aborted])
    console.log(renderResult(result))
    if (jsonFile !== null) {
      mkdirSync(dirname(jsonFile), { recursive: true })
      writeFileSync(jsonFile, `${JSON.stringify({ options, ...result }, null, 2)}\n`)
    }
    exitCode = result.ok ? 0 : 1
  } catch (error) {
    console.error(`The run was not completed: ${describeError(error)}`)
    if (error instanceof TapelineError) {
      exitCode = error.exitCode
      console.error(error.fix)
    } else if (!stop.signal.aborted) console.error(error)
    console.error(`The same faults again: ${commandOf(options)}`)
  } finally {
    clearTimeout(limit)
    stop.abort(new Error('the run is over'))
    await closers.closeAll().catch((error: unknown) => {
      exitCode = 1
      console.error(describeError(error))
    })
    for (const command of await run.end(GRACE_MS)) {
      exitCode = 1
      console.error(`A process was left behind, and is ended now: ${command}`)
    }
  }
  return exitCode
}

function say(message: string): void {
  console.log(`[${((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)} s] ${message}`)
}

// Everything has ended by now, but for waits of a run that was told to stop.
process.exit(await main(parseOptions(process.argv.slice(2))))
