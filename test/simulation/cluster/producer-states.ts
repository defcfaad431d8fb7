import type { StoredBatch } from './replica-log.ts'

/** Batches that a broker remembers per producer, to recognise duplicates. */
const REMEMBERED = 5

const OUT_OF_ORDER_SEQUENCE_NUMBER = 45

/** A leader's knowledge of the producers of a partition, derived from the log. */
export class ProducerStates {
  readonly #recent = new Map<number, StoredBatch[]>()

  constructor(batches: Iterable<StoredBatch> = []) {
    for (const batch of batches) this.add(batch)
  }

  add(batch: StoredBatch): void {
    const recent = this.#recent.get(batch.producerId)
    if (recent === undefined) this.#recent.set(batch.producerId, [batch])
    else {
      recent.push(batch)
      if (recent.length > REMEMBERED) recent.shift()
    }
  }

  /**
   * Checks a batch: null if it is the next one, the batch that it duplicates, or an error. A
   * producer unknown to the broker may begin with any sequence number, since Kafka 2.5.
   */
  check(producerId: number, sequence: number, count: number): StoredBatch | number | null {
    // Without idempotence.
    if (producerId < 0) return null
    const recent = this.#recent.get(producerId)
    const last = recent?.at(-1)
    if (recent === undefined || last === undefined) return null
    const same = recent.find((one) => one.sequence === sequence && one.count === count)
    if (same !== undefined) return same
    return sequence === last.sequence + last.count ? null : OUT_OF_ORDER_SEQUENCE_NUMBER
  }
}
