import type { KafkaRecord } from '@platformatic/kafka'

/**
 * A message of a fetch, which stays a slice of its batch: the value is copied on request. Key and
 * headers are shared with other messages and must not be changed.
 */
export class FetchedMessage {
  readonly offset: number
  readonly key: Buffer | null
  readonly headers: KafkaRecord['headers']
  /** The buffer with the value, from `start` to before `end`; null without a value. */
  readonly bytes: Buffer | null
  readonly start: number
  readonly end: number
  /** The epoch of the leader that appended it; −1 if unknown. */
  readonly leaderEpoch: number

  constructor(
    offset: number,
    key: Buffer | null,
    headers: KafkaRecord['headers'],
    bytes: Buffer | null,
    start = 0,
    end = bytes?.length ?? 0,
    leaderEpoch = -1,
  ) {
    this.offset = offset
    this.key = key
    this.headers = headers
    this.bytes = bytes
    this.start = start
    this.end = end
    this.leaderEpoch = leaderEpoch
  }

  get value(): Buffer | null {
    return this.bytes?.subarray(this.start, this.end) ?? null
  }
}
