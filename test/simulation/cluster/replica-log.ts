import { Reader } from '@platformatic/kafka'
import {
  type FetchedMessage,
  type MessageBatch,
  readRecordBatches,
} from '../../../src/foundation/kafka/codec/record-batch.ts'

/** A batch in a partition's log. Replicas share it. */
export interface StoredBatch {
  readonly baseOffset: number
  readonly leaderEpoch: number
  readonly count: number
  readonly producerId: number
  readonly sequence: number
  /** The process that produced it. */
  readonly incarnation: number
  /** As read by `readRecordBatches`; compaction removes messages. */
  content: MessageBatch
  /** Whether all in-sync replicas have had it. */
  isCommitted: boolean
  /** When the producer got its acknowledgement; infinite before. */
  acknowledgedAtMs: number
  /** Why Kafka's rules allow its loss or duplication. */
  readonly excuses: Set<'truncated' | 'forgotten'>
}

/** Positions of the two numbers in a batch's header that the broker writes, outside its checksum. */
const BASE_OFFSET_AT = 0
const LEADER_EPOCH_AT = 12

/** Reads a batch as its producer wrote it. @throws if the bytes are not exactly one batch */
export function readBatch(bytes: Buffer, baseOffset: number, leaderEpoch: number): MessageBatch {
  const copy = Buffer.from(bytes)
  copy.writeBigInt64BE(BigInt(baseOffset), BASE_OFFSET_AT)
  copy.writeInt32BE(leaderEpoch, LEADER_EPOCH_AT)
  const [batch, ...others] = readRecordBatches(Reader.from(copy).buffer)
  if (batch === undefined || others.length > 0)
    throw new Error('A Produce request does not have exactly one batch')
  return batch
}

/** A partition's log on one broker. */
export class ReplicaLog {
  readonly batches: StoredBatch[] = []
  highWatermark = 0
  /** The end of the log when its broker was last elected. */
  electedAt = 0

  get end(): number {
    const last = this.batches.at(-1)
    return last === undefined ? 0 : last.baseOffset + last.count
  }

  /** Adopts the leader's log, and drops batches that the leader lacks. @returns the dropped ones */
  catchUp(leader: ReplicaLog): StoredBatch[] {
    const dropped: StoredBatch[] = []
    for (let last = this.batches.at(-1); last !== undefined; last = this.batches.at(-1)) {
      if (leader.batches[this.batches.length - 1] === last) break
      this.batches.pop()
      dropped.push(last)
    }
    for (const batch of leader.batches.slice(this.batches.length)) this.batches.push(batch)
    this.highWatermark = Math.min(leader.highWatermark, this.end)
    return dropped
  }

  /** The end offset of this leader epoch, or of the last one before it, with that epoch. */
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

  /** Batches up to the high watermark; whole ones, at least one. */
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

/** How many records at the end of a partition compaction keeps, and how many it examines. */
const UNCOMPACTED = 20
const LOOKED_AT = 200

/** Removes records superseded by a newer one with the same key, except the newest records. */
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
