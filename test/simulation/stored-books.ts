import { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import { Decoder } from '../../src/foundation/kafka/message-decoder.ts'
import type { EventFields } from '../../src/foundation/market/event-fields.ts'
import { packedMaxBytes, packLevels } from '../../src/foundation/market/packed-levels.ts'
import { type Anchor, type BookDiff, snapshotHorizon } from '../../src/foundation/order-book/book-rows.ts'
import { LevelColumns } from '../../src/foundation/order-book/level-columns.ts'
import type { SideName } from '../../src/foundation/order-book/order-book.ts'
import type { Appended } from './kafka.ts'

/** A stored snapshot, the process that requested it, and when Kafka got it, in true time. */
export interface StoredSnapshot extends Anchor {
  readonly limit: number
  readonly incarnation: number
  readonly storedMs: number
}

/** The rows of one symbol, each once, as the tables have them. */
export interface StoredBook {
  readonly diffs: Map<string, BookDiff>
  readonly snapshots: Map<string, StoredSnapshot>
}

/** Order books as the consumer stores them: the messages of their topic, decoded by its code. */
export class StoredBooks {
  readonly bySymbol = new Map<string, StoredBook>()
  /** Messages that the consumer could not store. */
  readonly rejected: string[] = []
  readonly #decoder = new Decoder()

  /** @returns the event; null if it is a snapshot, or was rejected */
  add({ value, headers, incarnation }: Appended, storedMs: number): EventFields | null {
    const named = headers.map(([name, text]): [Buffer | null, Buffer | null] => [name, text])
    const reason = this.#decoder.decode('depth', new FetchedMessage(0, null, named, value))
    if (reason !== null) {
      this.rejected.push(`depth: ${reason}: ${value?.toString('utf8', 0, 100)}`)
      return null
    }
    const { event } = this.#decoder
    const { epoch, firstId, id: lastUpdateId, eventTimeUs, receivedUs, limit } = event
    const stored = this.#of(event.symbol.text)
    const [bids, asks] = [levelsOf(event, 'bids'), levelsOf(event, 'asks')]
    if (event.type === 'depth') {
      const key = `${epoch} ${firstId} ${lastUpdateId} ${eventTimeUs}`
      if (!stored.diffs.has(key))
        stored.diffs.set(key, {
          epoch,
          firstUpdateId: firstId,
          lastUpdateId,
          eventTimeUs,
          receivedUs,
          bids,
          asks,
        })
      return event
    }
    const horizons = { bidHorizon: snapshotHorizon(bids, limit), askHorizon: snapshotHorizon(asks, limit) }
    const snapshot = { epoch, lastUpdateId, receivedUs, bids, asks, ...horizons, derivedFrom: null }
    stored.snapshots.set(`${epoch} ${lastUpdateId} ${receivedUs}`, {
      ...snapshot,
      limit,
      incarnation,
      storedMs,
    })
    return null
  }

  #of(symbol: string): StoredBook {
    const known = this.bySymbol.get(symbol)
    if (known !== undefined) return known
    const stored = { diffs: new Map(), snapshots: new Map() }
    this.bySymbol.set(symbol, stored)
    return stored
  }
}

function levelsOf(event: EventFields, side: SideName): LevelColumns {
  const [start, end, count] =
    side === 'bids'
      ? [event.bidsStart, event.bidsEnd, event.bidCount]
      : [event.asksStart, event.asksEnd, event.askCount]
  const packed = Buffer.alloc(packedMaxBytes(count))
  const columns = new LevelColumns()
  columns.read(packed.subarray(0, packLevels(event.bytes, start, end, packed, 0)))
  return columns
}
