import type { BatchOptions, ProducedRecord } from './record-writer.ts'

/**
 * All records of a partition in a send, handed to the client as the value of one message: what it does for each message (two maps,
 * an object, texts) costs more than writing one. At least one record.
 */
export class PartitionRecords {
  readonly records: readonly ProducedRecord[]

  constructor(records: readonly ProducedRecord[]) {
    this.records = records
  }
}

interface Place {
  /** Which send this is to the partition, by the client's count. */
  readonly send: number
  /** Of the first record in it. */
  readonly first: number
  /** Of the first record behind it. */
  readonly next: number
}

/**
 * The sequence numbers of an idempotent producer, which count records. The client counts its own messages, of which one is a
 * whole partition's part of a send; it begins at 0 with every producer id it is given. Sends follow one another: a
 * request that is repeated is that of the last.
 */
export class PartitionSequences {
  #producer = ''
  readonly #places = new Map<string, Place>()

  /**
   * @param place topic and partition
   * @param count records in it
   * @returns the sequence number of the first record
   */
  first(
    place: string,
    count: number,
    {
      producerId = -1n,
      producerEpoch = 0,
      sequences,
    }: Pick<BatchOptions, 'producerId' | 'producerEpoch' | 'sequences'>,
  ): number {
    const producer = `${producerId}/${producerEpoch}`
    if (producer !== this.#producer) {
      this.#places.clear()
      this.#producer = producer
    }
    const send = sequences?.getWithDefault(place, 0) ?? 0
    const last = this.#places.get(place)
    if (last?.send === send) return last.first
    if (send !== (last === undefined ? 0 : last.send + 1)) {
      throw new Error(`${place}: send ${send} does not follow ${last?.send ?? 'the beginning'}`)
    }
    const first = last?.next ?? 0
    this.#places.set(place, { send, first, next: first + count })
    return first
  }
}
