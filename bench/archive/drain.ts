import { join } from 'node:path'
import type { ArchiveStatus } from '../../src/foundation/telemetry/status.ts'
import { fetchStatus } from '../../test/support/services.ts'
import { until } from '../../test/support/wait-for.ts'
import type { BenchOptions } from '../options.ts'
import type { Place } from '../place.ts'
import type { Figures } from '../run.ts'
import { Sampler } from '../sampler.ts'
import { layTapeline } from '../tapeline.ts'
import { archivedIn, requireArchived } from './archived.ts'
import { fillTopics } from './backlog.ts'

const START_LIMIT_MS = 60_000
const MESSAGES_A_SECOND = 2000
const EVERY_MS = 20
const MiB = 1 << 20

/**
 * Archives everything that is in the topics, with default settings: from the first message read to
 * the exit after SIGTERM, which commits the last segments.
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
    const archive = await pipeline.startArchive(url, settings)
    let isRunning = true
    try {
      const sampler = new Sampler({ archive: archive.pid, broker: place.brokerPid })
      let before = sampler.now()
      const consumed = async () => {
        signal.throwIfAborted()
        return (await fetchStatus<ArchiveStatus>(archive.url ?? '')).consumed
      }
      await until(
        'the first message to be read',
        async () => {
          before = sampler.now()
          return (await consumed()) > 0
        },
        START_LIMIT_MS,
        EVERY_MS,
      )
      const startedMs = performance.now()
      await until(
        `${messages} messages to be read`,
        async () => (await consumed()) >= messages,
        START_LIMIT_MS + (messages / MESSAGES_A_SECOND) * 1000,
        EVERY_MS * 5,
      )
      const lastSamples = setInterval(() => sampler.now(), EVERY_MS)
      isRunning = false
      await archive.stop()
      clearInterval(lastSamples)
      const seconds = (performance.now() - startedMs) / 1000
      const after = sampler.now()
      sampler.stop()
      const archived = await archivedIn(url)
      requireArchived(archived, messages)
      const micros = (name: string) =>
        (((after[name]?.cpuSeconds ?? 0) - (before[name]?.cpuSeconds ?? 0)) * 1e6) / messages
      return {
        'rows/s': messages / seconds,
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
      if (isRunning) await archive.stop()
    }
  } finally {
    await pipeline.remove()
  }
}
