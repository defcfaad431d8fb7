import type { TopicNames } from '../../src/foundation/kafka/config.ts'
import { HEADER, headerText } from '../../src/foundation/kafka/headers.ts'
import type { Appended } from './kafka.ts'
import { priceOf, quantityOf } from './market.ts'
import { StoredBooks } from './stored-books.ts'

/** A message in Kafka. */
export interface StoredEvent {
  /** The first update id of a depth update; otherwise the same as `id`. */
  readonly firstId: number
  readonly id: number
  readonly receiptMs: number
  /** When Kafka got it, in true time. */
  readonly storedMs: number
  readonly incarnation: number
  readonly isBackfilled: boolean
  readonly excuses: Appended['excuses']
}

/** Kafka's messages of one sequence, in the order of their offsets. */
export interface StoredStream {
  readonly symbol: string
  readonly type: string
  readonly epoch: number
  readonly events: StoredEvent[]
}

/** All messages of events in Kafka. */
export class StoredEvents {
  readonly streams = new Map<string, StoredStream>()
  /** Messages with other content than the exchange's. */
  readonly corrupt: string[] = []
  readonly books = new StoredBooks()
  readonly #topics: TopicNames
  /** Whether prices are those of order books. */
  readonly #hasBooks: boolean
  count = 0

  constructor(topics: TopicNames, hasBooks: boolean) {
    this.#topics = topics
    this.#hasBooks = hasBooks
  }

  add(appended: Appended, nowMs: number): void {
    const { topic, value, headers } = appended
    if (topic === this.#topics.depth) this.#addUpdate(appended, nowMs)
    if (topic !== this.#topics.trades && topic !== this.#topics.bookTicker) return
    const { e: type = 'bookTicker', s: symbol, t, a, u, p, q, ...stamp } = JSON.parse(String(value))
    const id: number = type === 'trade' ? t : type === 'aggTrade' ? a : u
    const whole = this.#hasBooks ? Number.parseInt(p, 10) : null
    if (type !== 'bookTicker' && (p !== priceOf(id, whole) || q !== quantityOf(id)))
      this.corrupt.push(`${symbol} ${type} ${id}: price ${p}, quantity ${q}`)
    const named = headers.map(([name, text]): [Buffer | null, Buffer | null] => [name, text])
    const epoch = Number(headerText(named, HEADER.epoch) ?? 0)
    const receiptMs: number = stamp.ingestion_timestamp_us / 1000
    const isBackfilled = stamp.source === 'backfill'
    this.#push(symbol, type, epoch, { firstId: id, id, receiptMs, isBackfilled }, appended, nowMs)
  }

  #addUpdate(appended: Appended, nowMs: number): void {
    const event = this.books.add(appended, nowMs)
    if (event === null) return
    const { symbol, type, epoch, firstId, id, receivedUs } = event
    const seen = { firstId, id, receiptMs: receivedUs / 1000, isBackfilled: false }
    this.#push(symbol.text, type, epoch, seen, appended, nowMs)
  }

  #push(
    symbol: string,
    type: string,
    epoch: number,
    event: Pick<StoredEvent, 'firstId' | 'id' | 'receiptMs' | 'isBackfilled'>,
    { incarnation, excuses }: Appended,
    storedMs: number,
  ): void {
    const key = `${symbol} ${type} ${epoch}`
    const stream: StoredStream = this.streams.get(key) ?? { symbol, type, epoch, events: [] }
    this.streams.set(key, stream)
    stream.events.push({ ...event, storedMs, incarnation, excuses })
    this.count++
  }
}
