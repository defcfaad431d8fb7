/**
 * `npm run bench`: measures the pipeline on real parts, optionally next to another one. See
 * docs/bench.md.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { boundedRun, type RunPlace } from '../test/support/bounded-run.ts'
import { runAlone } from './alone/stage.ts'
import { LIVE_RATE, runArchiveStages } from './archive/stages.ts'
import { depthFlatOut, depthMarket } from './depth.ts'
import { ARCHIVE_STAGES, type BenchOptions, parseOptions, type Stage } from './options.ts'
import { layPeer, preparePeer } from './peer.ts'
import type { Pipeline } from './pipeline.ts'
import { setPlace } from './place.ts'
import { renderReport } from './report.ts'
import { type Figures, runPipeline } from './run.ts'
import { scaleOut } from './scale.ts'
import { shardIngestion } from './shards.ts'
import { summarise } from './summary.ts'
import { layTapeline } from './tapeline.ts'

type Runs = Array<Record<string, Figures>>

/** Messages for the stages that run one part alone. */
const ALONE_MESSAGES = 200_000
/** Lower bound of the throughput of any measured pipeline. */
const MESSAGES_A_SECOND = 2000
/** Time for the start, the stages of one part alone, and the stop. */
const REST_OF_RUN_MS = 15 * 60_000

function main(given: BenchOptions): Promise<number> {
  const options = { ...given, peer: given.peer === null ? null : resolve(given.peer) }
  const jsonFile = options.jsonFile === null ? null : resolve(options.jsonFile)
  return boundedRun(limitOf(options), async (place) => {
    const { ours, peer } = await measure(options, place)
    console.log(
      `\n${renderReport(summarise(ours), peer.length === 0 ? null : summarise(peer), ratiosOf(ours, peer))}`,
    )
    if (jsonFile !== null) {
      mkdirSync(dirname(jsonFile), { recursive: true })
      writeFileSync(jsonFile, `${JSON.stringify({ options, ours, peer }, null, 2)}\n`)
    }
    return 0
  })
}

/** Frames of the exchange that the stages need; each stage begins with the first. */
function framesOf({ stages, rates, steadySeconds, warmUp, messages }: BenchOptions): number {
  const has = (...names: Stage[]) => names.some((stage) => stages.includes(stage))
  const at = (...perSecond: number[]) => perSecond.reduce((sum, rate) => sum + rate * steadySeconds, 0)
  return Math.max(
    has('flat out', 'steady', 'drain') ? warmUp : 0,
    has('flat out') ? warmUp + messages + (has('steady') ? at(...rates) : 0) : 0,
    has('steady', 'archive steady') ? warmUp + at(...rates) : 0,
    has('archive compaction') ? warmUp + at(LIVE_RATE) : 0,
    has('scale') ? messages : 0,
  )
}

/** Time limit: all messages once from end to end, and once more for each drain. */
function limitOf(options: BenchOptions): number {
  const { runs, peer, messages, rates, steadySeconds } = options
  const drains =
    1 +
    (options.stages.includes('drain') ? 1 : 0) +
    (options.stages.includes('scale') ? 4 : 0) +
    (options.stages.includes('shards') ? 3 : 0) +
    2 * ARCHIVE_STAGES.filter((stage) => options.stages.includes(stage)).length
  const all = (framesOf(options) + messages) * drains
  const eachMs = (all / MESSAGES_A_SECOND + rates.length * steadySeconds) * 1000
  return REST_OF_RUN_MS + runs * (peer === null ? 1 : 2) * eachMs
}

/** Alternates the pipelines, so that a temporary slowdown of the machine affects both. */
async function measure(options: BenchOptions, run: RunPlace): Promise<{ ours: Runs; peer: Runs }> {
  const { symbols } = options
  const { say, signal } = run
  // A peer need not support microseconds.
  const place = await setPlace(symbols, options.peer === null ? 'microsecond' : 'millisecond', run)
  const prepared = options.peer === null ? null : await preparePeer(options.peer, say)
  say('making frames')
  await place.feeder.prepare(framesOf(options))
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
    for (const stage of ['decode', 'produce', 'insert', 'rebuild', 'depth'] as const)
      if (options.stages.includes(stage)) alone[stage] = await runAlone(place, stage, ALONE_MESSAGES)
    if (options.stages.includes('scale')) Object.assign(alone, await scaleOut(place, options, say, signal))
    if (options.stages.includes('shards')) Object.assign(alone, await shardIngestion(place, options, signal))
    if (options.stages.includes('depth flat out'))
      alone['depth flat out'] = await depthFlatOut(place, run.folder, options, signal)
    if (options.stages.includes('depth market'))
      alone['depth market'] = await depthMarket(place, run.folder, options, signal)
    Object.assign(alone, await runArchiveStages(place, options, i + 1, run))
    await one(`run ${i + 1} tapeline`, ours, () => layTapeline(place, symbols, options.settings), alone)
    if (prepared !== null) await one(`run ${i + 1} peer`, peer, () => layPeer(place, prepared, symbols))
  }
  return { ours, peer }
}

/** Ratios of each run to the peer's run that followed it, by stage and figure. */
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

process.exit(await main(parseOptions(process.argv.slice(2))))
