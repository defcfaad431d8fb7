import type { ConsumerStatus } from '../src/foundation/telemetry/status.ts'
import { fetchStatus } from '../test/support/services.ts'
import { until } from '../test/support/wait-for.ts'
import type { BenchOptions } from './options.ts'
import type { Measured, Pipeline } from './pipeline.ts'
import type { Place } from './place.ts'
import { produced, waitUntilStored } from './progress.ts'
import { rowsSince } from './rows.ts'
import { type Figures, requireRows } from './run.ts'
import { Sampler } from './sampler.ts'
import { layTapeline } from './tapeline.ts'

const CONSUMERS = [1, 2, 3]
const PARTITIONS = 12
/** The group has divided its partitions by the first of these shares. */
const SHARES = [0.4, 0.98] as const
const MESSAGES_A_SECOND = 2000

/**
 * Drains the same backlog with one, two and three consumers of a group: the share of each and the
 * total rate.
 */
export async function scaleOut(
  place: Place,
  options: BenchOptions,
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<Record<string, Figures>> {
  const settings = { ...options.settings, KAFKA_PARTITIONS: String(PARTITIONS) }
  const filled = await layTapeline(place, options.symbols, settings)
  try {
    await place.feeder.rewind()
    const ingestion = await filled.startIngestion()
    try {
      await place.feeder.feed(options.messages, null)
      await until(
        'all messages to be in Kafka',
        async () => (await produced(place, filled)) >= options.messages,
        options.messages,
      )
    } finally {
      await ingestion.stop()
    }
    const figures: Record<string, Figures> = {}
    for (const count of CONSUMERS) {
      figures[`${count} in the group`] = await drainWith(
        place,
        await filled.again(),
        options,
        count,
        say,
        signal,
      )
    }
    return figures
  } finally {
    await filled.remove()
  }
}

async function drainWith(
  place: Place,
  pipeline: Pipeline,
  options: BenchOptions,
  count: number,
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<Figures> {
  const { messages } = options
  const consumers: Measured[] = []
  try {
    for (let i = 0; i < count; i++) consumers.push(await pipeline.startConsumer(options.settings))
    const sampler = new Sampler({
      database: place.postgresPid,
      ...Object.fromEntries(consumers.map(({ pid }, i) => [`consumer ${i + 1}`, pid])),
    })
    const before = sampler.now()
    await waitUntilStored(place, pipeline, messages, (messages / MESSAGES_A_SECOND) * 1000, signal)
    const after = sampler.now()
    sampler.stop()
    const statuses = await Promise.all(consumers.map(({ url }) => fetchStatus<ConsumerStatus>(url ?? '')))
    const owned = statuses.map(({ partitions }) =>
      partitions
        .filter(({ topic }) => pipeline.topics.includes(topic))
        .map((one) => `${one.topic} ${one.partition}`),
    )
    const all = owned.flat()
    if (all.length !== 2 * PARTITIONS || new Set(all).size !== all.length)
      throw new Error(
        `The group shares ${all.length} partitions of ${2 * PARTITIONS}: ${owned.map(String).join(' | ')}`,
      )
    say(
      `${count} in the group own ${owned.map(({ length }) => length).join(' + ')} partitions and stored ${statuses.map(({ counters }) => counters.inserted).join(' + ')}`,
    )
    const rows = await rowsSince(pipeline, 0, SHARES)
    requireRows(rows, messages)
    const used = (name: string) => (after[name]?.cpuSeconds ?? 0) - (before[name]?.cpuSeconds ?? 0)
    const ofConsumers = consumers.reduce((sum, _, i) => sum + used(`consumer ${i + 1}`), 0)
    return {
      'rows/s': ((SHARES[1] - SHARES[0]) * messages) / (rows.toSeconds - rows.fromSeconds),
      'consumers µs': (ofConsumers * 1e6) / messages,
      'database µs': (used('database') * 1e6) / messages,
    }
  } catch (error) {
    const said = consumers.map((consumer) => consumer.output().slice(-3000)).join('\n')
    throw new Error(`The group did not store everything; output of its members:\n${said}`, { cause: error })
  } finally {
    await Promise.all(consumers.map((consumer) => consumer.stop()))
    await pipeline.remove()
  }
}
