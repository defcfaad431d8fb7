import type { TopicNames } from '../../src/foundation/kafka/config.ts'
import { HEADER, headerText } from '../../src/foundation/kafka/headers.ts'
import type { Appended } from './kafka.ts'
import { priceOf, quantityOf } from './market.ts'

/** A message in Kafka. */
export interface StoredEvent {
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

/** All messages of trades, aggTrades and quotes in Kafka. */
export class StoredEvents {
  readonly streams = new Map<string, StoredStream>()
  /** Messages with other content than the exchange's. */
  readonly corrupt: string[] = []
  readonly #topics: TopicNames
  count = 0

  constructor(topics: TopicNames) {
    this.#topics = topics
  }

  add({ topic, value, headers, incarnation, excuses }: Appended, nowMs: number): void {
    if (topic !== this.#topics.trades && topic !== this.#topics.bookTicker) return
    const { e: type = 'bookTicker', s: symbol, t, a, u, p, q, ...stamp } = JSON.parse(String(value))
    const id: number = type === 'trade' ? t : type === 'aggTrade' ? a : u
    if (type !== 'bookTicker' && (p !== priceOf(id) || q !== quantityOf(id)))
      this.corrupt.push(`${symbol} ${type} ${id}: price ${p}, quantity ${q}`)
    const named = headers.map(([name, text]): [Buffer | null, Buffer | null] => [name, text])
    const epoch = Number(headerText(named, HEADER.epoch) ?? 0)
    const key = `${symbol} ${type} ${epoch}`
    const stream: StoredStream = this.streams.get(key) ?? { symbol, type, epoch, events: [] }
    this.streams.set(key, stream)
    const receiptMs: number = stamp.ingestion_timestamp_us / 1000
    const isBackfilled = stamp.source === 'backfill'
    stream.events.push({ id, receiptMs, storedMs: nowMs, incarnation, isBackfilled, excuses })
    this.count++
  }
}
