import type { TopicNames } from '../../src/foundation/kafka/config.ts'
import { HEADER, headerText } from '../../src/foundation/kafka/headers.ts'
import type { Appended } from './kafka.ts'
import { priceOf, quantityOf } from './market.ts'

/** Kafka's messages of one sequence, in the order of their offsets. */
export interface StoredStream {
  readonly symbol: string
  readonly type: string
  readonly epoch: number
  readonly ids: number[]
  /** Receipt times, microseconds. */
  readonly receiptsUs: number[]
  /** When Kafka got them, in true time. */
  readonly storedMs: number[]
  readonly incarnations: number[]
  readonly backfilled: boolean[]
  readonly excuses: Array<Appended['excuses']>
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
    const {
      e: type = 'bookTicker',
      s: symbol,
      t,
      a,
      u,
      p,
      q,
      source,
      ingestion_timestamp_us: receiptUs,
    } = JSON.parse(String(value))
    const id: number = type === 'trade' ? t : type === 'aggTrade' ? a : u
    if (type !== 'bookTicker' && (p !== priceOf(id) || q !== quantityOf(id)))
      this.corrupt.push(`${symbol} ${type} ${id}: price ${p}, quantity ${q}`)
    const named = headers.map(([name, text]): [Buffer | null, Buffer | null] => [name, text])
    const stream = this.#streamOf(symbol, type, Number(headerText(named, HEADER.epoch) ?? 0))
    stream.ids.push(id)
    stream.receiptsUs.push(receiptUs)
    stream.storedMs.push(nowMs)
    stream.incarnations.push(incarnation)
    stream.backfilled.push(source === 'backfill')
    stream.excuses.push(excuses)
    this.count++
  }

  #streamOf(symbol: string, type: string, epoch: number): StoredStream {
    const key = `${symbol} ${type} ${epoch}`
    const known = this.streams.get(key)
    if (known !== undefined) return known
    const stream = {
      symbol,
      type,
      epoch,
      ids: [],
      receiptsUs: [],
      storedMs: [],
      incarnations: [],
      backfilled: [],
      excuses: [],
    }
    this.streams.set(key, stream)
    return stream
  }
}
