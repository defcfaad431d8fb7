import { Reader } from '@platformatic/kafka'
import type { FetchedMessage } from '../../../src/foundation/kafka/codec/fetched-message.ts'
import { type MessageBatch, readRecordBatches } from '../../../src/foundation/kafka/codec/record-batch.ts'

/** A batch in the log of a partition. Replicas share it. */
export interface StoredBatch {
  readonly baseOffset: number
  readonly leaderEpoch: number
  readonly count: number
  readonly producerId: number
  readonly sequence: number
  /** The process that produced it. */
  readonly incarnation: number
  /** As `readRecordBatches` has read it; compaction removes messages. */
  content: MessageBatch
  /** All in-sync replicas have had it. */
  isCommitted: boolean
  /** When the producer learned that it is written; infinite before. */
  acknowledgedAtMs: number
  /** Why Kafka may lose it, or have it twice, within its own rules. */
  readonly excuses: Set<'truncated' | 'forgotten'>
}

/** Where the head of a batch has the two numbers that the broker writes; its checksum does not cover them. */
const BASE_OFFSET_AT = 0
const LEADER_EPOCH_AT = 12

/** Reads a batch as its producer wrote it. @throws when the bytes are not exactly one batch */
export function readBatch(bytes: Buffer, baseOffset: number, leaderEpoch: number): MessageBatch {
  const copy = Buffer.from(bytes)
  copy.writeBigInt64BE(BigInt(baseOffset), BASE_OFFSET_AT)
  copy.writeInt32BE(leaderEpoch, LEADER_EPOCH_AT)
  const [batch, ...others] = readRecordBatches(Reader.from(copy).buffer)
  if (batch === undefined || others.length > 0) throw new Error('A Produce request has not one batch')
  return batch
}

/** A partition's log on one broker. */
export class ReplicaLog {
  readonly batches: StoredBatch[] = []
  highWatermark = 0

  get end(): number {
    const last = this.batches.at(-1)
    return last === undefined ? 0 : last.baseOffset + last.count
  }

  /** Takes over what the leader has, and drops what it does not have. @returns what was dropped */
  catchUp(leader: ReplicaLog): StoredBatch[] {
    const dropped: StoredBatch[] = []
    for (let last = this.batches.at(-1); last !== undefined; last = this.batches.at(-1)) {
      if (leader.batches[this.batches.length - 1] === last) break
      this.batches.pop()
      dropped.push(last)
    }
    for (let at = this.batches.length; at < leader.batches.length; at++) {
      const batch = leader.batches[at]
      if (batch !== undefined) this.batches.push(batch)
    }
    this.highWatermark = Math.min(leader.highWatermark, this.end)
    return dropped
  }

  /** Where the batches of this leader epoch end, or of the last one before; it is the epoch that the offset is of. */
  endOf(leaderEpoch: number): { readonly leaderEpoch: number; readonly offset: number } {
    const at = this.batches.findLastIndex((batch) => batch.leaderEpoch <= leaderEpoch)
    const last = this.batches[at]
    return last === undefined
      ? { leaderEpoch, offset: this.batches[0]?.baseOffset ?? 0 }
      : { leaderEpoch: last.leaderEpoch, offset: last.baseOffset + last.count }
  }

  /** The batch with this offset in it. */
  indexOf(offset: number): number {
    let low = 0
    let high = this.batches.length
    while (low < high) {
      const middle = (low + high) >> 1
      const { baseOffset = 0, count = 0 } = this.batches[middle] ?? {}
      if (baseOffset + count <= offset) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Up to the high watermark; whole batches, at least one. */
  read(offset: number, maxMessages: number): MessageBatch[] {
    const read: MessageBatch[] = []
    let messages = 0
    for (let at = this.indexOf(offset); messages < maxMessages; at++) {
      const batch = this.batches[at]
      if (batch === undefined || batch.baseOffset + batch.count > this.highWatermark) break
      read.push(batch.content)
      messages += batch.count
    }
    return read
  }
}

/** How many records at the end of a partition compaction leaves alone, and how many it looks at. */
const UNCOMPACTED = 20
const LOOKED_AT = 200

/** Removes what a new record under the same key has superseded, but for the newest records, as the broker does sooner or later. */
export function compact(log: ReplicaLog, key: Buffer | null): void {
  if (key === null) return
  for (let at = log.batches.length - 1; at >= 0; at--) {
    const batch = log.batches[at]
    if (batch === undefined || log.end - batch.baseOffset > LOOKED_AT) return
    if (log.end - (batch.baseOffset + batch.count) < UNCOMPACTED) continue
    const { messages } = batch.content
    if (!messages.some((one: FetchedMessage) => one.key?.equals(key) === true)) continue
    batch.content = { ...batch.content, messages: messages.filter((one) => one.key?.equals(key) !== true) }
    return
  }
}
