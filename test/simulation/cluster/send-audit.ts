import type { RecordProducer } from '../../../src/foundation/kafka/kafka-port.ts'
import type {
  BaseOffset,
  OutgoingRecord,
  PartitionRecords,
} from '../../../src/foundation/kafka/record-sender.ts'
import type { Cluster } from './cluster.ts'
import type { Partition } from './partition.ts'
import type { StoredBatch } from './replica-log.ts'

/** A send must be acknowledged within this time once every partition has a leader again. */
const ACKNOWLEDGED_WITHIN_MS = 20_000

/**
 * The same for a send that was running when a broker lost a request or its answer. The 20 s count
 * 8 s for a request without an answer, 8 s for a bootstrap broker that hangs, and the waits between
 * attempts. But the leader that loses requests stays the leader, so each loss in a row gives it 8 s
 * more, up to 32 s (K3 of the specification). The cluster is whole from the end of the losses, and
 * the last lost request may have been sent just before.
 */
const AFTER_LOSS_WITHIN_MS = ACKNOWLEDGED_WITHIN_MS + 24_000

/** How far back from a partition's end to search for an acknowledged batch with an unknown offset. */
const LOOKED_BACK = 500

/** The sender's default. */
const LIMIT_MS = 30_000

/** A send in progress. */
interface Send {
  readonly sinceMs: number
  readonly isAlive: () => boolean
}

/** Checks the sends of all processes: acknowledged messages are in Kafka, and in time. */
export class SendAudit {
  readonly #cluster: Cluster
  readonly #pending = new Set<Send>()
  /** Since when sends depend only on their sender. */
  #wholeSinceMs = 0
  #isWhole = true

  constructor(cluster: Cluster) {
    this.#cluster = cluster
    cluster.onChange = () => this.#onChange()
  }

  /** The same sender, audited. */
  audited(sender: RecordProducer, isAlive: () => boolean): RecordProducer {
    return {
      topics: (names) => sender.topics(names),
      send: async (records, options) => {
        const send = { sinceMs: this.#cluster.nowMs, isAlive }
        this.#pending.add(send)
        const unreported = new Set(records.map(({ topic, partition }) => `${topic}/${partition}`))
        try {
          await sender.send(records, {
            ...(options ?? { limitMs: LIMIT_MS }),
            onAcknowledged: (base, acknowledged) => {
              unreported.delete(`${base.topic}/${base.partition}`)
              this.#acknowledged(base, acknowledged)
              options?.onAcknowledged?.(base, acknowledged)
            },
            ...(options?.onTooLarge === undefined
              ? {}
              : {
                  onTooLarge: (refused: PartitionRecords<(typeof records)[number]>, error: unknown) => {
                    unreported.delete(`${refused.topic}/${refused.partition}`)
                    options.onTooLarge?.(refused, error)
                  },
                }),
          })
          for (const name of unreported) this.#complain(`K1: ${name}: acknowledged without being reported`)
        } finally {
          this.#check(send)
          this.#pending.delete(send)
        }
      },
      close: () => sender.close(),
    }
  }

  /** Processes, and their sends, are paused until then. */
  excuseUntil(ms: number): void {
    this.#wholeSinceMs = Math.max(this.#wholeSinceMs, ms)
  }

  /** Sends in progress. */
  check(): void {
    for (const send of this.#pending) this.#check(send)
  }

  #onChange(): void {
    const { isWhole, nowMs } = this.#cluster
    if (isWhole === this.#isWhole) return
    if (isWhole) this.excuseUntil(nowMs)
    else this.check()
    this.#isWhole = isWhole
  }

  #acknowledged({ topic, partition: index, offset }: BaseOffset, records: readonly OutgoingRecord[]): void {
    const { nowMs } = this.#cluster
    const partition = this.#cluster.partition(topic, index)
    const batch = partition === undefined ? undefined : find(partition, records, offset)
    if (batch !== undefined) batch.acknowledgedAtMs = Math.min(batch.acknowledgedAtMs, nowMs)
    else this.#complain(`K1: ${topic}/${index}: acknowledged at ${offset}, but not there`)
  }

  #check({ sinceMs, isAlive }: Send): void {
    if (!this.#isWhole || !isAlive()) return
    const { nowMs, lostAtMs } = this.#cluster
    const tookMs = nowMs - Math.max(sinceMs, this.#wholeSinceMs)
    if (tookMs > (lostAtMs >= sinceMs ? AFTER_LOSS_WITHIN_MS : ACKNOWLEDGED_WITHIN_MS))
      this.#complain(
        `K3: not acknowledged within ${(tookMs / 1000).toFixed(1)} s although every partition has a leader, at ${nowMs}`,
      )
  }

  #complain(text: string): void {
    this.#cluster.complaints.push(text)
  }
}

function find(
  partition: Partition,
  sent: readonly OutgoingRecord[],
  offset: number,
): StoredBatch | undefined {
  // An acknowledgement may arrive after its leader has gone; another replica has the batch then.
  for (const log of partition.logs.values()) {
    const at = offset < 0 ? Math.max(0, log.batches.length - LOOKED_BACK) : log.indexOf(offset)
    const candidates = log.batches.slice(at, offset < 0 ? undefined : at + 1)
    const found = candidates.find((batch) => batch.isCommitted && isOf(partition, batch, sent))
    if (found !== undefined) return found
  }
  return [...partition.truncated].find((batch) => isOf(partition, batch, sent))
}

function isOf({ isCompacted }: Partition, batch: StoredBatch, sent: readonly OutgoingRecord[]): boolean {
  if (batch.count !== sent.length) return false
  const { messages } = batch.content
  // Compaction may have removed some already.
  if (isCompacted && messages.length < sent.length) return true
  return messages.every((message, i) => {
    const { value = null } = sent[i] ?? {}
    return value === null ? message.value === null : message.value?.equals(value) === true
  })
}
