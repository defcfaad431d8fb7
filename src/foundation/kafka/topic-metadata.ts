import { type Base, findErrorBy } from '@platformatic/kafka'
import { describeError, TapelineError } from '../runtime/errors.ts'
import { answersWithin, hasKafkaError } from './client.ts'

/** The metadata of a topic that clients need. */
export interface TopicMetadata {
  /** Kafka's id of the topic; a recreated topic has another. */
  readonly id: string
  readonly partitions: number
}

/** Also the leaders of its partitions. */
export interface TopicLayout extends TopicMetadata {
  /** Node ids by partition; negative for one without a leader. */
  readonly leaders: readonly number[]
  /**
   * The number of leaders that each partition has had. A leader refuses requests for another epoch.
   */
  readonly leaderEpochs: readonly number[]
}

/** Topics, and the brokers by node id. */
export interface ClusterLayout {
  readonly topics: ReadonlyMap<string, TopicLayout>
  readonly brokers: ReadonlyMap<number, { readonly host: string; readonly port: number }>
}

/** Like {@link clusterLayout}, for the topics only. */
export async function topicLayouts(
  client: Base,
  names: readonly string[],
): Promise<Map<string, TopicLayout>> {
  return new Map((await clusterLayout(client, names)).topics)
}

/**
 * Requests the topics, which must all exist. A partition without a leader is accepted.
 *
 * @throws TapelineError `KAFKA` naming the missing topics; other errors if no broker answers
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
    // The client throws an answer in which one partition has no leader.
    const answer = answersWithin(error).findLast(isWholeAnswer)
    if (answer !== undefined) {
      return {
        topics: layoutsOf(answer),
        brokers: new Map(answer.brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }])),
      }
    }
    // For an unknown topic it throws a user error.
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

/** Like {@link topicLayouts}, without leaders. */
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

/** Whether an answer has no errors except those of single partitions. */
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
