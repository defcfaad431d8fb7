import { partitionOf } from '../../src/foundation/kafka/partition.ts'
import { brokers, type TestTopics } from './kafka.ts'
import { connectionTo, outgoing, sendRecords } from './kafka-clients.ts'

/** 2024-08-08 12:00 UTC. */
const START_MS = Date.UTC(2024, 7, 8, 12)
const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']

/** One message in ingestion's format: a quote, a trade or an aggTrade, in turn. */
function marketMessage(i: number): {
  readonly kind: 'trades' | 'bookTicker'
  readonly symbol: string
  readonly value: Buffer
} {
  const symbol = SYMBOLS[i % SYMBOLS.length] ?? 'BTCUSDT'
  const id = 3_500_000_000 + i
  const timeMs = START_MS + i
  const price = `${61_000 + (i % 977)}.${String((i * 7919) % 100).padStart(2, '0')}000000`
  const quantity = `0.${String((i * 104_729) % 100_000).padStart(5, '0')}000`
  const stamps = `"ingestion_timestamp":${timeMs + 57},"ingestion_timestamp_us":${(timeMs + 57) * 1000 + (i % 1000)}`
  const turn = Math.floor(i / SYMBOLS.length) % 5
  if (turn > 1) {
    const quote = `"u":${id},"s":"${symbol}","b":"${price}","B":"${quantity}","a":"${price}","A":"${quantity}"`
    return { kind: 'bookTicker', symbol, value: Buffer.from(`{${quote},${stamps}}`) }
  }
  const own =
    turn === 0
      ? `"e":"trade","E":${timeMs + 1},"s":"${symbol}","t":${id}`
      : `"e":"aggTrade","E":${timeMs + 1},"s":"${symbol}","a":${id}`
  const range = turn === 0 ? '' : `,"f":${id},"l":${id}`
  const common = `"p":"${price}","q":"${quantity}"${range},"T":${timeMs},"m":${i % 2 === 0},"M":true`
  return { kind: 'trades', symbol, value: Buffer.from(`{${own},${common},${stamps}}`) }
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
        const { kind, symbol, value } = marketMessage(i)
        const other = spoiled(i)
        return outgoing({
          topic: topicOf[kind],
          partition: partitionOf(symbol, 3),
          key: Buffer.from(symbol),
          value: other === undefined ? value : other,
        })
      }),
  )
}
