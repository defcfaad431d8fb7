import type { SegmentBuffers } from './segment-rows.ts'

/** Days that a segment may touch, so that few files must be read again for a day. */
const MAX_DAYS = 8

/** Rows of one partition, from one offset to another. */
export interface Segment extends SegmentBuffers {
  /** UUID. */
  readonly id: string
  readonly incarnation: number
  readonly firstOffset: number
  /** The offset after its last message. */
  nextOffset: number
  /** Leader epoch of its last message; −1 if unknown. */
  leaderEpoch: number
  messages: number
  /** Messages in its range that Kafka no longer had. */
  lost: number
  /** On the monotonic clock. */
  readonly openedAtMs: number
}

/** Bytes of memory; 0 for null. */
export function bytesOf(segment: Segment | null): number {
  let bytes = 0
  for (const buffer of segment?.buffers.values() ?? []) bytes += buffer.bytes
  return bytes
}

/** Whether it must end, since it touches as many days as it may. */
export function isFull(segment: Segment | null): boolean {
  if (segment === null) return false
  for (const { days } of segment.buffers.values()) if (days.size >= MAX_DAYS) return true
  return false
}
