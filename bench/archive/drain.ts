import { join } from 'node:path'
import type { ArchiveStatus } from '../../src/foundation/telemetry/status.ts'
import { fetchStatus } from '../../test/support/services.ts'
import { until } from '../../test/support/wait-for.ts'
import type { BenchOptions } from '../options.ts'
import type { Place } from '../place.ts'
import type { Figures } from '../run.ts'
import { Sampler } from '../sampler.ts'
import { layTapeline } from '../tapeline.ts'
import { archivedIn, requireArchived, rowsIn } from './archived.ts'
import { fillTopics } from './backlog.ts'

const START_LIMIT_MS = 60_000
const MESSAGES_A_SECOND = 2000
const EVERY_MS = 20
const MiB = 1 << 20

/** The last rows wait so long; in a backlog segments are full earlier. */
const FLUSH_MS = 10_000

/**
 * Archives everything that is in the topics. The rate is that of the rows which are committed when the
 * last message is read. Processor time includes the last segments.
 */
export async function drainToArchive(
  place: Place,
  folder: string,
  { messages, symbols, settings }: BenchOptions,
  signal: AbortSignal,
): Promise<Figures> {
  const pipeline = await layTapeline(place, symbols, settings)
  const url = join(folder, 'drained')
  try {
    await fillTopics(place, pipeline, messages)
    const interval = { ARCHIVE_FLUSH_INTERVAL_MS: String(FLUSH_MS) }
    const archive = await pipeline.startArchive(url, { ...interval, ...settings })
    try {
      const sampler = new Sampler({ archive: archive.pid, broker: place.brokerPid })
      let before = sampler.now()
      const status = async () => {
        signal.throwIfAborted()
        return fetchStatus<ArchiveStatus>(archive.url ?? '')
      }
      await until(
        'the first message to be read',
        async () => {
          before = sampler.now()
          return (await status()).consumed > 0
        },
        START_LIMIT_MS,
        EVERY_MS,
      )
      const startedMs = performance.now()
      const limitMs = START_LIMIT_MS + (messages / MESSAGES_A_SECOND) * 1000
      const read = await until(
        `${messages} messages to be read`,
        async () => {
          const now = await status()
          return now.consumed >= messages && now
        },
        limitMs,
        EVERY_MS * 5,
      )
      const perSecond = (rowsIn(read) * 1000) / (performance.now() - startedMs)
      await until(
        `${messages} rows to be committed`,
        async () => rowsIn(await status()) >= messages,
        limitMs,
        EVERY_MS * 5,
      )
      const after = sampler.now()
      sampler.stop()
      const archived = await archivedIn(url)
      requireArchived(archived, messages)
      const micros = (name: string) =>
        (((after[name]?.cpuSeconds ?? 0) - (before[name]?.cpuSeconds ?? 0)) * 1e6) / messages
      return {
        'rows/s': perSecond,
        'archive µs': micros('archive'),
        'broker µs': micros('broker'),
        'archive MiB': (after['archive']?.peakBytes ?? 0) / MiB,
        'bytes per row': archived.bytes / archived.rows,
        segments: archived.segments,
      }
    } catch (error) {
      const said = archive.output().slice(-2000)
      throw new Error(`The archive did not store everything; its output:\n${said}`, { cause: error })
    } finally {
      await archive.stop()
    }
  } finally {
    await pipeline.remove()
  }
}
