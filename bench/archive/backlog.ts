import { EXCHANGE_IDENTITY_KEY, markOf } from '../../src/foundation/kafka/exchange-identity-mark.ts'
import { partitionOf } from '../../src/foundation/kafka/partition.ts'
import { connectionTo, outgoing, sendRecords } from '../../test/support/kafka-clients.ts'
import { produceMarket, produceTrades } from '../../test/support/market-messages.ts'
import type { Place } from '../place.ts'
import type { TapelinePipeline } from '../tapeline.ts'

/** Fills a pipeline's topics without ingestion, with this many messages of {@link MARKET_DAY}. */
export async function fillTopics(place: Place, pipeline: TapelinePipeline, messages: number): Promise<void> {
  await nameExchange(place, pipeline)
  await produceMarket(pipeline, messages)
}

/** The same with trades of the first of {@link MARKET_SYMBOLS}. */
export async function fillWithTrades(
  place: Place,
  pipeline: TapelinePipeline,
  trades: number,
): Promise<void> {
  await nameExchange(place, pipeline)
  await produceTrades(pipeline, trades)
}

/** Writes the mark of the exchange, which ingestion writes otherwise. */
async function nameExchange({ admin, brokers }: Place, { env }: TapelinePipeline): Promise<void> {
  const topic = env.KAFKA_CHECKPOINTS_TOPIC
  const { topics } = await admin.metadata({ topics: [topic] })
  const mark = markOf(
    { source: 'bench', timeUnit: 'millisecond' },
    {
      trades: env.KAFKA_TRADES_TOPIC,
      bookTicker: env.KAFKA_BOOK_TICKER_TOPIC,
      depth: env.KAFKA_DEPTH_TOPIC,
      gaps: env.KAFKA_GAPS_TOPIC,
      checkpoints: topic,
      deadLetters: env.KAFKA_DEAD_LETTERS_TOPIC,
    },
  )
  await sendRecords(connectionTo([brokers]), [
    outgoing({
      topic,
      partition: partitionOf(EXCHANGE_IDENTITY_KEY, topics.get(topic)?.partitionsCount ?? 1),
      key: Buffer.from(EXCHANGE_IDENTITY_KEY),
      value: Buffer.from(JSON.stringify(mark)),
    }),
  ])
}
