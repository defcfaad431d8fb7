import type { FetchedMessage } from './codec/fetched-message.ts'
import type { RecordFetcher } from './kafka-port.ts'
import type { FetchLimits } from './partition-fetcher.ts'

/** A range of a partition, up to before `end`. */
export interface Range {
  readonly topic: string
  readonly partition: number
  readonly start: number
  readonly end: number
}

/**
 * Reads a range of a partition from its leader.
 *
 * @throws if retention or a truncation removes messages of it meanwhile
 */
export async function readRange(
  fetcher: RecordFetcher,
  { topic, partition, start, end }: Range,
  limits: FetchLimits,
  onMessage: (message: FetchedMessage) => void,
): Promise<void> {
  let leaderEpoch = -1
  for (let offset = start; offset < end; ) {
    const fetched = await fetcher.read({ topic, partition, offset, leaderEpoch }, limits)
    const { error, diverging, nextOffset, endOffset } = fetched
    if (error !== null || diverging !== null || (nextOffset === null && endOffset < end)) {
      throw new Error(
        `Partition ${partition} of ${topic} lost messages while it was read, at offset ${offset}`,
      )
    }
    for (const message of fetched.messages)
      if (message.offset >= offset && message.offset < end) onMessage(message)
    if (nextOffset === null) continue
    offset = nextOffset
    leaderEpoch = fetched.nextLeaderEpoch
  }
}
