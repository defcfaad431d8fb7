import type { FetchedPartition } from '../kafka/codec/fetch-api.ts'
import type { PartitionOrigin, Position, TopicPartition } from '../kafka/partition.ts'

/** A position in one incarnation of a topic. */
export type ReadPosition = Position & PartitionOrigin

/** A range of offsets that the broker no longer has. */
export interface Hole extends TopicPartition {
  readonly from: number
  readonly to: number
}

/** Holds the messages that are read and not stored, and the positions to read from. */
export interface MessageBuffer {
  /** Whether more may be fetched. */
  readonly hasRoom: boolean
  /** Where to fetch from next. */
  positions(): ReadPosition[]
  /**
   * Takes in the messages of a fetch from the expected offset on. Ignores those of another topic with
   * the name.
   *
   * @param nowMs of the monotonic clock
   * @param wallMs of the wall clock
   * @returns a hole when the fetch begins above the expected offset; nothing was taken in then
   */
  accept(fetched: FetchedPartition, nowMs: number, wallMs: number): Hole | null
  /** Continues at a higher offset: the broker does not have those before it. */
  skipTo(position: ReadPosition, nowMs: number): void
}
