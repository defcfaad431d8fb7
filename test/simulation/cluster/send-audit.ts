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

/**
 * How far back from a partition's end to search for an acknowledged batch with an unknown offset.
 */
const LOOKED_BACK = 500

/**
 * Checks the sends of all processes: acknowledged messages are in Kafka, and acknowledgements
 * arrive in time.
 */
export class SendAudit {
  readonly #cluster: Cluster
  readonly #pending = new Set<AuditedSend>()
  /** Since when sends depend only on their sender. */
  wholeSinceMs = 0
  isWhole = true
  /** The longest send while the cluster was healthy. */
  longestMs = 0

  constructor(cluster: Cluster) {
    this.#cluster = cluster
    cluster.onChange = () => this.#onChange()
  }

  begin(records: readonly OutgoingRecord[], isAlive: () => boolean): AuditedSend {
    const send = new AuditedSend(this, this.#cluster, records, isAlive, () => this.#pending.delete(send))
    this.#pending.add(send)
    return send
  }

  /** Processes, and their sends, are paused until then. */
  excuseUntil(ms: number): void {
    this.wholeSinceMs = Math.max(this.wholeSinceMs, ms)
  }

  /** Sends in progress. */
  check(): void {
    for (const send of this.#pending) send.check()
  }

  #onChange(): void {
    const { isWhole, nowMs } = this.#cluster
    if (isWhole === this.isWhole) return
    if (isWhole) this.wholeSinceMs = Math.max(this.wholeSinceMs, nowMs)
    else this.check()
    this.isWhole = isWhole
  }
}

/** One send, until it resolves or rejects. */
export class AuditedSend {
  readonly #audit: SendAudit
  readonly #cluster: Cluster
  readonly #sinceMs: number
  readonly #isAlive: () => boolean
  readonly #onEnd: () => void
  /** Partitions that the sender has not reported yet. */
  readonly #open: Set<string>

  constructor(
    audit: SendAudit,
    cluster: Cluster,
    records: readonly OutgoingRecord[],
    isAlive: () => boolean,
    onEnd: () => void,
  ) {
    this.#audit = audit
    this.#cluster = cluster
    this.#sinceMs = cluster.nowMs
    this.#isAlive = isAlive
    this.#onEnd = onEnd
    this.#open = new Set(records.map(({ topic, partition }) => `${topic}/${partition}`))
  }

  acknowledged({ topic, partition: index, offset }: BaseOffset, records: readonly OutgoingRecord[]): void {
    this.#open.delete(`${topic}/${index}`)
    const partition = this.#cluster.partition(topic, index)
    const batch = partition === undefined ? undefined : find(partition, records, offset)
    if (batch !== undefined) batch.acknowledgedAtMs = Math.min(batch.acknowledgedAtMs, this.#cluster.nowMs)
    else this.#complain(`K1: ${topic}/${index}: acknowledged at ${offset}, but not there`)
  }

  refused({ topic, partition }: PartitionRecords): void {
    this.#open.delete(`${topic}/${partition}`)
  }

  resolved(): void {
    for (const name of this.#open) this.#complain(`K1: ${name}: acknowledged without being reported`)
  }

  end(): void {
    this.check()
    this.#onEnd()
  }

  check(): void {
    const { wholeSinceMs, isWhole } = this.#audit
    if (!isWhole || !this.#isAlive()) return
    const { nowMs } = this.#cluster
    const tookMs = nowMs - Math.max(this.#sinceMs, wholeSinceMs)
    this.#audit.longestMs = Math.max(this.#audit.longestMs, tookMs)
    const limitMs = this.#cluster.lostAtMs >= this.#sinceMs ? AFTER_LOSS_WITHIN_MS : ACKNOWLEDGED_WITHIN_MS
    if (tookMs > limitMs)
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
