import { partitionOf } from '../../src/foundation/kafka/partition.ts'
import { connectionTo, outgoing, sendRecords } from './kafka-clients.ts'
import { eventValue } from './records.ts'

/** The day of the first 43,200,000 messages, which begin at noon. */
export const MARKET_DAY = '2024-08-08'
const START_MS = Date.parse(`${MARKET_DAY}T12:00:00Z`)
export const MARKET_SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']

const TURNS = 5

/** One message in ingestion's format: a quote, a trade or an aggTrade, in turn. */
function marketMessage(i: number) {
  const symbol = MARKET_SYMBOLS[i % MARKET_SYMBOLS.length] ?? 'BTCUSDT'
  const id = 3_500_000_000 + i
  const timeMs = START_MS + i
  const receiptMs = timeMs + 57
  const stamps = { ingestion_timestamp: receiptMs, ingestion_timestamp_us: receiptMs * 1000 + (i % 1000) }
  const price = `${61_000 + (i % 977)}.${String((i * 7919) % 100).padStart(2, '0')}000000`
  const quantity = `0.${String((i * 104_729) % 100_000).padStart(5, '0')}000`
  const turn = Math.floor(i / MARKET_SYMBOLS.length) % TURNS
  if (turn > 1) {
    const quote = { u: id, s: symbol, b: price, B: quantity, a: price, A: quantity }
    return { topic: 'bookTicker', symbol, value: eventValue('bookTicker', { ...quote, ...stamps }) } as const
  }
  const trade = { E: timeMs + 1, s: symbol, p: price, q: quantity, T: timeMs, m: i % 2 === 0 }
  const value =
    turn === 0
      ? eventValue('trade', { ...trade, t: id, ...stamps })
      : eventValue('aggTrade', { ...trade, a: id, f: id, l: id, ...stamps })
  return { topic: 'trades', symbol, value } as const
}

/** Settings that name the brokers and topics of events, of three partitions each. */
export interface MarketTopics {
  readonly env: Readonly<Record<'KAFKA_BROKERS' | 'KAFKA_TRADES_TOPIC' | 'KAFKA_BOOK_TICKER_TOPIC', string>>
}

/**
 * Produces this many messages of a busy market.
 *
 * @param spoiled a value that replaces the message's, null included; undefined for none
 */
export async function produceMarket(
  topics: MarketTopics,
  count: number,
  spoiled: (index: number) => Buffer | null | undefined = () => undefined,
): Promise<void> {
  await produce(topics, Array(count).keys(), spoiled)
}

/** Produces only trades of the first symbol: its trades in a market of fifteen times as many messages. */
export async function produceTrades(topics: MarketTopics, count: number): Promise<void> {
  const every = MARKET_SYMBOLS.length * TURNS
  await produce(
    topics,
    Array(count)
      .keys()
      .map((i) => i * every),
  )
}

async function produce(
  { env }: MarketTopics,
  indexes: IteratorObject<number>,
  spoiled: (index: number) => Buffer | null | undefined = () => undefined,
): Promise<void> {
  const topicOf = { trades: env.KAFKA_TRADES_TOPIC, bookTicker: env.KAFKA_BOOK_TICKER_TOPIC }
  const records = indexes.map((i) => {
    const { topic, symbol, value } = marketMessage(i)
    const other = spoiled(i)
    return outgoing({
      topic: topicOf[topic],
      partition: partitionOf(symbol, 3),
      key: Buffer.from(symbol),
      value: other === undefined ? value : other,
    })
  })
  await sendRecords(connectionTo(env.KAFKA_BROKERS.split(',')), records)
}
