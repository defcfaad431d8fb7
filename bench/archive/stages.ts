import { join } from 'node:path'
import type { RunPlace } from '../../test/support/bounded-run.ts'
import type { BenchOptions } from '../options.ts'
import type { Place } from '../place.ts'
import type { Figures } from '../run.ts'
import type { TapelinePipeline } from '../tapeline.ts'
import { fillTopics, fillWithTrades } from './backlog.ts'
import { type BothStores, withBothStores } from './both-stores.ts'
import { compactAlone, unpublish } from './compaction.ts'
import { drainToArchive } from './drain.ts'
import { exportBoth } from './exports.ts'
import { archiveMarket } from './market.ts'
import { queryBoth } from './queries.ts'
import { bytesOfRecordings } from './recorded.ts'
import { archiveSteadily } from './steady.ts'

/** Rate beside which days are published. */
export const LIVE_RATE = 15_000

/** Trades of the stage `export`. */
const EXPORTED_TRADES = 1_000_000

/** Runs the requested stages of the archive, each in its own folder. */
export async function runArchiveStages(
  place: Place,
  options: BenchOptions,
  run: number,
  { folder, signal }: RunPlace,
): Promise<Record<string, Figures>> {
  const wants = (stage: BenchOptions['stages'][number]) => options.stages.includes(stage)
  const own = join(folder, `archives-${run}`)
  const figures: Record<string, Figures> = {}
  if (wants('archive drain') || wants('archive compaction'))
    figures['archive drain'] = await drainToArchive(place, own, options, signal)
  if (wants('archive compaction')) {
    const drained = join(own, 'drained')
    figures['archive compaction alone'] = await compactAlone(drained)
    await unpublish(drained)
    const live = { ...options, rates: [LIVE_RATE] }
    const steady = await archiveSteadily(place, own, live, signal, async () => {
      figures['archive compaction beside live'] = await compactAlone(drained)
    })
    figures[`archive at ${LIVE_RATE}/s beside compaction`] = steady[`archive at ${LIVE_RATE}/s`] ?? {}
  }
  if (wants('archive steady')) Object.assign(figures, await archiveSteadily(place, own, options, signal))
  if (wants('archive bytes')) Object.assign(figures, await bytesOfRecordings(own))
  if (wants('archive queries')) {
    const fill = (pipeline: TapelinePipeline) => fillTopics(place, pipeline, options.messages)
    Object.assign(
      figures,
      await withBothStores(place, join(own, 'queries'), options, signal, fill, queryBoth),
    )
  }
  if (wants('export')) {
    const stores = { ...options, messages: EXPORTED_TRADES }
    const fill = (pipeline: TapelinePipeline) => fillWithTrades(place, pipeline, EXPORTED_TRADES)
    const folder = join(own, 'export')
    const use = (both: BothStores) => exportBoth(both, folder)
    Object.assign(figures, await withBothStores(place, folder, stores, signal, fill, use))
  }
  if (wants('archive market')) figures['archive market'] = await archiveMarket(place, own, options, signal)
  return figures
}
