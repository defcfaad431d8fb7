import type { KafkaRecord } from '@platformatic/kafka'

/**
 * A message of a fetch, left where it stands among the others of its batch: its value is cut out when it is asked for.
 * Key and headers are shared with other messages, and so must not be changed.
 */
export class FetchedMessage {
  readonly offset: number
  readonly key: Buffer | null
  readonly headers: KafkaRecord['headers']
  /** What the value stands in, from `start` to before `end`; null when there is no value. */
  readonly bytes: Buffer | null
  readonly start: number
  readonly end: number
  /** The epoch of the leader that appended it; −1 when it is not known. */
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
