import { type Base, findErrorBy } from '@platformatic/kafka'
import { describeError, TapelineError } from '../errors.ts'
import { hasKafkaError } from './client.ts'

/** What a client needs to know of a topic. */
export interface TopicMetadata {
  /** Kafka's id of this incarnation of the topic: another after it was deleted and made again. */
  readonly id: string
  readonly partitions: number
}

/**
 * Asks the brokers for the topics, all of which must exist.
 *
 * @throws TapelineError `KAFKA` naming the topics that are missing; other errors when no broker answers
 */
export async function topicMetadata(
  client: Base,
  names: readonly string[],
): Promise<Map<string, TopicMetadata>> {
  try {
    const metadata = await client.metadata({ topics: [...names], forceUpdate: true, retries: 1 })
    return new Map(
      names.flatMap((name) => {
        const topic = metadata.topics.get(name)
        return topic === undefined ? [] : [[name, { id: topic.id, partitions: topic.partitionsCount }]]
      }),
    )
  } catch (error) {
    // The client makes an error of the user's of a topic that the broker does not know.
    const unknown = error instanceof Error && findErrorBy(error, 'code', 'PLT_KFK_USER') !== null
    if (unknown || hasKafkaError(error, 'UNKNOWN_TOPIC_OR_PARTITION')) {
      throw new TapelineError(
        'KAFKA',
        `A topic is missing on the broker, of: ${names.join(', ')} (${describeError(error)})`,
        {
          fix: 'Create the topics with: bin/tapeline topics init',
          cause: error,
        },
      )
    }
    throw error
  }
}
