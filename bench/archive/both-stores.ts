import { join } from 'node:path'
import type { ArchiveStatus } from '../../src/foundation/telemetry/status.ts'
import { fetchStatus } from '../../test/support/services.ts'
import { until } from '../../test/support/wait-for.ts'
import type { BenchOptions } from '../options.ts'
import type { Place } from '../place.ts'
import { waitUntilStored } from '../progress.ts'
import { layTapeline, type TapelinePipeline } from '../tapeline.ts'
import { archivedIn, requireArchived } from './archived.ts'
import { compactAlone } from './compaction.ts'

const START_LIMIT_MS = 60_000
const MESSAGES_A_SECOND = 2000

/** The same rows in tables and in published days. */
export interface BothStores {
  readonly databaseUrl: string
  readonly archiveUrl: string
}

/**
 * Stores messages in an empty database and in an archive, publishes their days, and passes both on.
 *
 * @param fill produces the messages
 */
export async function withBothStores<Result>(
  place: Place,
  folder: string,
  { symbols, settings, messages }: BenchOptions,
  signal: AbortSignal,
  fill: (pipeline: TapelinePipeline) => Promise<void>,
  use: (stores: BothStores) => Promise<Result>,
): Promise<Result> {
  const pipeline = await layTapeline(place, symbols, settings)
  const archiveUrl = join(folder, 'both')
  const limitMs = START_LIMIT_MS + (messages / MESSAGES_A_SECOND) * 1000
  try {
    await fill(pipeline)
    const consumer = await pipeline.startConsumer(settings)
    try {
      await waitUntilStored(place, pipeline, messages, limitMs, signal)
    } finally {
      await consumer.stop()
    }
    const archive = await pipeline.startArchive(archiveUrl, settings)
    try {
      await until(
        `${messages} messages to be read`,
        async () => (await fetchStatus<ArchiveStatus>(archive.url ?? '')).consumed >= messages,
        limitMs,
      )
    } finally {
      await archive.stop()
    }
    requireArchived(await archivedIn(archiveUrl), messages)
    await compactAlone(archiveUrl)
    return await use({ databaseUrl: pipeline.databaseUrl, archiveUrl })
  } finally {
    await pipeline.remove()
  }
}
