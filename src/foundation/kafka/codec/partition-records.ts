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

/** Of a client that has just been given another id, a request under the one before may still be repeated. */
const PRODUCERS_KEPT = 2

/**
 * The sequence numbers of an idempotent producer, which count records. The client counts its own messages, of which one is a
 * whole partition's part of a send; it begins at 0 with every producer id it is given. Sends follow one another: a
 * request that is repeated is that of the last.
 */
export class PartitionSequences {
  /** By producer id and epoch, then by place. */
  readonly #producers = new Map<string, Map<string, Place>>()

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
    const places = this.#placesOf(`${producerId}/${producerEpoch}`)
    const send = sequences?.getWithDefault(place, 0) ?? 0
    const last = places.get(place)
    if (last?.send === send) return last.first
    if (send !== (last === undefined ? 0 : last.send + 1)) {
      throw new Error(`${place}: send ${send} does not follow ${last?.send ?? 'the beginning'}`)
    }
    const first = last?.next ?? 0
    places.set(place, { send, first, next: first + count })
    return first
  }

  #placesOf(producer: string): Map<string, Place> {
    const known = this.#producers.get(producer)
    if (known !== undefined) return known
    for (const old of [...this.#producers.keys()].slice(0, 1 - PRODUCERS_KEPT)) this.#producers.delete(old)
    const places = new Map<string, Place>()
    this.#producers.set(producer, places)
    return places
  }
}
