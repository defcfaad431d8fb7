/** `npm run bench`: what the pipeline costs, on real parts, beside another one where asked for. See docs/bench.md. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { describeError, TapelineError } from '../src/errors.ts'
import { Closers } from '../src/telemetry/closers.ts'
import { beginTestRun } from '../test/support/test-run.ts'
import { runAlone } from './alone/stage.ts'
import { type BenchOptions, parseOptions } from './options.ts'
import { layPeer, preparePeer } from './peer.ts'
import type { Pipeline } from './pipeline.ts'
import { setPlace } from './place.ts'
import { renderReport } from './report.ts'
import { type Figures, runPipeline } from './run.ts'
import { scaleOut } from './scale.ts'
import { summarise } from './summary.ts'
import { layTapeline } from './tapeline.ts'

type Runs = Array<Record<string, Figures>>

const GRACE_MS = 1000
/** Of the stages that are one part alone. */
const ALONE_MESSAGES = 200_000
const startedMs = performance.now()

async function main(given: BenchOptions): Promise<number> {
  const options = { ...given, peer: given.peer === null ? null : resolve(given.peer) }
  const jsonFile = options.jsonFile === null ? null : resolve(options.jsonFile)
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => stop.abort(new Error(`stopped by ${signal}`)))
  const run = await beginTestRun(say)
  process.chdir(run.folder)
  const closers = new Closers()
  const aborted = new Promise<never>((_, reject) => {
    stop.signal.addEventListener('abort', () => reject(stop.signal.reason), { once: true })
  })
  let exitCode = 1
  try {
    const { ours, peer } = await Promise.race([
      measure(options, join(run.folder, 'bench'), closers, stop.signal),
      aborted,
    ])
    console.log(
      `\n${renderReport(summarise(ours), peer.length === 0 ? null : summarise(peer), ratiosOf(ours, peer))}`,
    )
    if (jsonFile !== null) {
      mkdirSync(dirname(jsonFile), { recursive: true })
      writeFileSync(jsonFile, `${JSON.stringify({ options, ours, peer }, null, 2)}\n`)
    }
    exitCode = 0
  } catch (error) {
    console.error(`The run was not completed: ${describeError(error)}`)
    if (error instanceof TapelineError) {
      exitCode = error.exitCode
      console.error(error.fix)
    } else if (!stop.signal.aborted) console.error(error)
  } finally {
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

/** What is compared takes turns, so that a machine that is slow for a while is slow for both. */
async function measure(
  options: BenchOptions,
  folder: string,
  closers: Closers,
  signal: AbortSignal,
): Promise<{ ours: Runs; peer: Runs }> {
  const { symbols } = options
  const place = await setPlace({ symbols, folder, closers, say, signal })
  const prepared = options.peer === null ? null : await preparePeer(options.peer, place.cacheDir, say)
  const steady = options.rates.reduce((sum, rate) => sum + rate * options.steadySeconds, 0)
  say('making frames')
  await place.feeder.prepare(
    options.warmUp + options.messages + (options.stages.includes('steady') ? steady : 0),
  )
  const ours: Runs = []
  const peer: Runs = []
  const one = async (
    name: string,
    into: Runs,
    lay: () => Promise<Pipeline>,
    before: Record<string, Figures> = {},
  ) => {
    const whole = options.stages.some((stage) => ['flat out', 'steady', 'drain'].includes(stage))
    const figures = { ...before, ...(whole ? await runPipeline(place, lay, options, signal) : {}) }
    into.push(figures)
    const rates = Object.entries(figures).map(
      ([stage, { 'rows/s': rate }]) => `${stage}${rate === undefined ? '' : ` ${Math.round(rate)} rows/s`}`,
    )
    say(`${name}: ${rates.join(', ')}`)
  }
  for (let i = 0; i < options.runs; i++) {
    const alone: Record<string, Figures> = {}
    for (const stage of ['decode', 'produce', 'insert'] as const)
      if (options.stages.includes(stage)) alone[stage] = await runAlone(place, stage, ALONE_MESSAGES)
    if (options.stages.includes('scale')) Object.assign(alone, await scaleOut(place, options, say, signal))
    await one(`run ${i + 1} tapeline`, ours, () => layTapeline(place, symbols, options.settings), alone)
    if (prepared !== null) await one(`run ${i + 1} peer`, peer, () => layPeer(place, prepared, symbols))
  }
  return { ours, peer }
}

/** Of each run to the peer's that followed it: by stage and figure. */
function ratiosOf(ours: Runs, peer: Runs): Record<string, Record<string, number[]>> {
  const ratios: Record<string, Record<string, number[]>> = {}
  for (const [i, run] of ours.entries()) {
    for (const [stage, figures] of Object.entries(run)) {
      const byName = ratios[stage] ?? {}
      ratios[stage] = byName
      for (const [name, value] of Object.entries(figures)) {
        const theirs = peer[i]?.[stage]?.[name]
        if (theirs !== undefined) byName[name] = [...(byName[name] ?? []), value / theirs]
      }
    }
  }
  return ratios
}

function say(message: string): void {
  console.log(`[${((performance.now() - startedMs) / 1000).toFixed(1).padStart(6)} s] ${message}`)
}

process.exit(await main(parseOptions(process.argv.slice(2))))
