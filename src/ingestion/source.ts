import { describeError, TapelineError } from '../errors.ts'
import { latestValue } from '../kafka/latest-value.ts'
import { partitionOf } from '../kafka/partition-map.ts'
import { createProducer } from '../kafka/producer.ts'
import { refuseOtherSource, SOURCE_KEY } from '../kafka/source-mark.ts'
import { topicMetadata } from '../kafka/topic-metadata.ts'
import type { IngestionConfig } from './config.ts'

/**
 * Makes sure that the topics hold data of this exchange only: leaves its name in the checkpoints topic before the
 * first message, and refuses topics that bear another.
 *
 * @throws TapelineError `SOURCE` when they do; other errors when Kafka cannot be asked
 */
export async function claimSource(config: IngestionConfig, source: string): Promise<void> {
  const topic = config.topics.checkpoints
  const marked = await latestValue(config.kafka, topic, SOURCE_KEY)
  if (marked !== null) {
    refuseOtherSource(
      'These Kafka topics',
      marked,
      source,
      'Use topics of their own for this source (KAFKA_TRADES_TOPIC, …) or another broker, and another database.',
    )
    return
  }
  const producer = createProducer(config.kafka, 'tapeline-ingestion-source', 'none')
  try {
    const partitions = (await topicMetadata(producer, [topic])).get(topic)?.partitions ?? 1
    await producer.send({
      messages: [
        {
          topic,
          key: Buffer.from(SOURCE_KEY),
          value: Buffer.from(source),
          partition: partitionOf(SOURCE_KEY, partitions),
          timestamp: BigInt(Date.now()),
        },
      ],
    })
  } catch (error) {
    if (error instanceof TapelineError) throw error
    throw new Error(`The source cannot be noted in ${topic}: ${describeError(error)}`, { cause: error })
  } finally {
    await producer.close(true)
  }
}
