import { join } from 'node:path'
import type { ArchiveStatus } from '../../src/foundation/telemetry/status.ts'
import { fetchStatus } from '../../test/support/services.ts'
import { until } from '../../test/support/wait-for.ts'
import type { BenchOptions } from '../options.ts'
import type { Measured } from '../pipeline.ts'
import type { Place } from '../place.ts'
import { waitUntilStored } from '../progress.ts'
import type { Figures } from '../run.ts'
import { Sampler } from '../sampler.ts'
import { layTapeline } from '../tapeline.ts'
import { archivedIn, requireArchived, rowsIn } from './archived.ts'

const LIMIT_MS = 120_000
/** Segments of each phase. The default interval writes fewer, larger ones, which cost less a row. */
const SEGMENTS = 2
const MiB = 1 << 20

/**
 * Runs both stores on the same messages at steady rates: processor time of each per message.
 *
 * @param beside runs during the last rate
 */
export async function archiveSteadily(
  place: Place,
  folder: string,
  options: BenchOptions,
  signal: AbortSignal,
  beside: () => Promise<void> = async () => {},
): Promise<Record<string, Figures>> {
  const { rates, steadySeconds, symbols, settings } = options
  const pipeline = await layTapeline(place, symbols, settings)
  const url = join(folder, `steady-${rates.join('-')}`)
  const running: Measured[] = []
  const start = async (service: Promise<Measured>) => {
    running.push(await service)
    return service
  }
  const figures: Record<string, Figures> = {}
  try {
    await place.feeder.rewind()
    const consumer = await start(pipeline.startConsumer(settings))
    const flushMs = Math.ceil((steadySeconds * 1000) / SEGMENTS)
    const interval = { ARCHIVE_FLUSH_INTERVAL_MS: String(flushMs) }
    const archive = await start(pipeline.startArchive(url, { ...interval, ...settings }))
    const ingestion = await start(pipeline.startIngestion())
    let fed = 0
    const feed = async (count: number, perSecond: number | null) => {
      await place.feeder.feed(count, perSecond)
      fed += count
      await waitUntilStored(place, pipeline, fed, LIMIT_MS + count, signal)
      await until(
        `${fed} rows to be archived`,
        async () => rowsIn(await fetchStatus<ArchiveStatus>(archive.url ?? '')) >= fed,
        LIMIT_MS + flushMs,
        // Each answer costs the archive some processor time.
        1000,
      )
    }
    await feed(options.warmUp, null)
    for (const rate of rates) {
      const sampler = new Sampler({
        ...{ archive: archive.pid, consumer: consumer.pid, ingestion: ingestion.pid },
        ...{ database: place.postgresPid, broker: place.brokerPid },
      })
      const before = sampler.now()
      const count = rate * steadySeconds
      await Promise.all([feed(count, rate), rate === rates.at(-1) ? beside() : null])
      const after = sampler.now()
      sampler.stop()
      const micros = (name: string) =>
        (((after[name]?.cpuSeconds ?? 0) - (before[name]?.cpuSeconds ?? 0)) * 1e6) / count
      figures[`archive at ${rate}/s`] = {
        'archive µs': micros('archive'),
        'consumer µs': micros('consumer'),
        'database µs': micros('database'),
        'archive / (consumer + database)': micros('archive') / (micros('consumer') + micros('database')),
        'ingestion µs': micros('ingestion'),
        'broker µs': micros('broker'),
        'archive MiB': (after['archive']?.peakBytes ?? 0) / MiB,
      }
    }
    for (const process of running.splice(0).reverse()) await process.stop()
    requireArchived(await archivedIn(url), fed)
    return figures
  } catch (error) {
    const said = running.map((process) => process.output().slice(-2000)).join('\n')
    throw new Error(`The run failed; output of the services:\n${said}`, { cause: error })
  } finally {
    for (const process of running) await process.stop()
    await pipeline.remove()
  }
}
