import { partitionOf } from '../../src/foundation/kafka/partition.ts'
import { brokers, type TestTopics } from './kafka.ts'
import { connectionTo, outgoing, sendRecords } from './kafka-clients.ts'
import { eventValue } from './records.ts'

/** 2024-08-08 12:00 UTC. */
const START_MS = Date.UTC(2024, 7, 8, 12)
const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']

/** One message in ingestion's format: a quote, a trade or an aggTrade, in turn. */
function marketMessage(i: number) {
  const symbol = SYMBOLS[i % SYMBOLS.length] ?? 'BTCUSDT'
  const id = 3_500_000_000 + i
  const timeMs = START_MS + i
  const receiptMs = timeMs + 57
  const stamps = { ingestion_timestamp: receiptMs, ingestion_timestamp_us: receiptMs * 1000 + (i % 1000) }
  const price = `${61_000 + (i % 977)}.${String((i * 7919) % 100).padStart(2, '0')}000000`
  const quantity = `0.${String((i * 104_729) % 100_000).padStart(5, '0')}000`
  const turn = Math.floor(i / SYMBOLS.length) % 5
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

/**
 * Produces this many messages of a busy market.
 *
 * @param spoiled a value that replaces the message's, null included; undefined for none
 */
export async function produceMarket(
  topics: TestTopics,
  count: number,
  spoiled: (index: number) => Buffer | null | undefined = () => undefined,
): Promise<void> {
  const topicOf = { trades: topics.env.KAFKA_TRADES_TOPIC, bookTicker: topics.env.KAFKA_BOOK_TICKER_TOPIC }
  await sendRecords(
    connectionTo(brokers()),
    Array(count)
      .keys()
      .map((i) => {
        const { topic, symbol, value } = marketMessage(i)
        const other = spoiled(i)
        return outgoing({
          topic: topicOf[topic],
          partition: partitionOf(symbol, 3),
          key: Buffer.from(symbol),
          value: other === undefined ? value : other,
        })
      }),
  )
}
