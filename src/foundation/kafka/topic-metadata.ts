import { type Base, findErrorBy } from '@platformatic/kafka'
import { describeError, TapelineError } from '../runtime/errors.ts'
import { answersWithin, hasKafkaError } from './client.ts'

/** What a client needs to know of a topic. */
export interface TopicMetadata {
  /** Kafka's id of this incarnation of the topic: another after it was deleted and made again. */
  readonly id: string
  readonly partitions: number
}

/** Also who leads its partitions. */
export interface TopicLayout extends TopicMetadata {
  /** Node ids by partition; negative while one has no leader. */
  readonly leaders: readonly number[]
  /** How many leaders each partition has had. A leader refuses what was asked of another. */
  readonly leaderEpochs: readonly number[]
}

/** Topics, and the brokers by node id. */
export interface ClusterLayout {
  readonly topics: ReadonlyMap<string, TopicLayout>
  readonly brokers: ReadonlyMap<number, { readonly host: string; readonly port: number }>
}

/** As {@link clusterLayout}, the topics alone. */
export async function topicLayouts(
  client: Base,
  names: readonly string[],
): Promise<Map<string, TopicLayout>> {
  return new Map((await clusterLayout(client, names)).topics)
}

/**
 * Asks the brokers for the topics, all of which must exist. A partition without a leader is no obstacle.
 *
 * @throws TapelineError `KAFKA` naming the topics that are missing; other errors when no broker answers
 */
export async function clusterLayout(client: Base, names: readonly string[]): Promise<ClusterLayout> {
  try {
    const metadata = await client.metadata({ topics: [...names], forceUpdate: true, retries: 1 })
    const topics = new Map(
      names.flatMap((name): Array<[string, TopicLayout]> => {
        const topic = metadata.topics.get(name)
        if (topic === undefined) return []
        const { id, partitionsCount, partitions } = topic
        const leaders = Array.from({ length: partitionsCount }, (_, i) => partitions[i]?.leader ?? -1)
        const leaderEpochs = leaders.map((_, i) => partitions[i]?.leaderEpoch ?? -1)
        return [[name, { id, partitions: partitionsCount, leaders, leaderEpochs }]]
      }),
    )
    return { topics, brokers: metadata.brokers }
  } catch (error) {
    // The client makes an error of an answer in which one partition has no leader.
    const answer = answersWithin(error).findLast(isWholeAnswer)
    if (answer !== undefined) {
      return {
        topics: layoutsOf(answer),
        brokers: new Map(answer.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }])),
      }
    }
    // And an error of the user's of a topic that the broker does not know.
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

/** As {@link topicLayouts}. */
export async function topicMetadata(
  client: Base,
  names: readonly string[],
): Promise<Map<string, TopicMetadata>> {
  return topicLayouts(client, names)
}

interface MetadataAnswer {
  readonly brokers: ReadonlyArray<{ readonly nodeId: number; readonly host: string; readonly port: number }>
  readonly topics: ReadonlyArray<{
    readonly errorCode: number
    readonly name: string
    readonly topicId: string
    readonly partitions: ReadonlyArray<{
      readonly partitionIndex: number
      readonly leaderId: number
      readonly leaderEpoch: number
    }>
  }>
}

/** An answer in which nothing is amiss but single partitions. */
function isWholeAnswer(value: unknown): value is MetadataAnswer {
  if (typeof value !== 'object' || value === null || !('topics' in value)) return false
  const { topics } = value
  return (
    Array.isArray(topics) &&
    topics.length > 0 &&
    topics.every(
      (topic) =>
        topic?.errorCode === 0 && typeof topic.topicId === 'string' && Array.isArray(topic.partitions),
    )
  )
}

function layoutsOf({ topics }: MetadataAnswer): Map<string, TopicLayout> {
  return new Map(
    topics.map(({ name, topicId, partitions }) => {
      const byIndex = new Map(partitions.map((one) => [one.partitionIndex, one]))
      const indexes = Array.from({ length: partitions.length }, (_, i) => i)
      return [
        name,
        {
          id: topicId,
          partitions: partitions.length,
          leaders: indexes.map((i) => byIndex.get(i)?.leaderId ?? -1),
          leaderEpochs: indexes.map((i) => byIndex.get(i)?.leaderEpoch ?? -1),
        },
      ]
    }),
  )
}
