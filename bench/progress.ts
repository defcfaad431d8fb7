import { until } from '../test/support/wait-for.ts'
import type { Pipeline } from './pipeline.ts'
import type { Place } from './place.ts'

const EVERY_MS = 100

/** Counts the messages in a pipeline's topics. */
export async function produced({ admin }: Place, { topics, partitions }: Pipeline): Promise<number> {
  const asked = await admin.listOffsets({
    topics: topics.map((name) => ({
      name,
      partitions: Array.from({ length: partitions }, (_, partitionIndex) => ({
        partitionIndex,
        timestamp: -1n,
      })),
    })),
  })
  return sum(asked.flatMap(({ partitions }) => partitions.map(({ offset }) => offset)))
}

/**
 * Counts the messages that the consumer group has committed. Asking Kafka does not load the
 * database.
 */
export async function committed({ admin }: Place, { topics, group }: Pipeline): Promise<number> {
  const [answer] = await admin.listConsumerGroupOffsets({ groups: [group] })
  const ours = answer?.topics.filter(({ name }) => topics.includes(name)) ?? []
  return sum(ours.flatMap(({ partitions }) => partitions.map(({ committedOffset }) => committedOffset)))
}

/** @throws when the consumer does not reach this number in time */
export async function waitUntilStored(
  place: Place,
  pipeline: Pipeline,
  messages: number,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<void> {
  const stored = async () => {
    signal.throwIfAborted()
    return (await committed(place, pipeline)) >= messages
  }
  await until(`${messages} messages to be stored`, stored, timeoutMs, EVERY_MS)
}

function sum(offsets: readonly bigint[]): number {
  return offsets.reduce((all, offset) => all + Math.max(0, Number(offset)), 0)
}
