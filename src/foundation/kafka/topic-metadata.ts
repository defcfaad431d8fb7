import {
  type Admin,
  type Base,
  ConfigResourceTypes,
  metadataV12,
  ResponseError,
  type ResponseErrorWithLocation,
} from '@platformatic/kafka'
import { TapelineError } from '../runtime/errors.ts'
import { addressOf, partialAnswer, usableApi, withAdmin } from './client.ts'
import type { KafkaConnection } from './config.ts'

export interface TopicMetadata {
  /** Kafka's id of the topic; a recreated topic has another. */
  readonly id: string
  readonly partitions: number
}

/** Also the leaders of its partitions. */
export interface TopicLayout extends TopicMetadata {
  /** Node ids by partition; negative for one without a leader. */
  readonly leaders: readonly number[]
  /** How many leaders each partition has had. A leader refuses requests for another epoch. */
  readonly leaderEpochs: readonly number[]
}

/** Topics, and the brokers by node id. */
export interface ClusterLayout {
  readonly topics: ReadonlyMap<string, TopicLayout>
  readonly brokers: ReadonlyMap<number, { readonly host: string; readonly port: number }>
}

/** This version includes the ids of topics and the caller's rights. */
export const METADATA_APIS = [metadataV12.api]

type MetadataAnswer = metadataV12.MetadataResponse
export type DescribedTopic = MetadataAnswer['topics'][number]

const UNKNOWN_TOPIC = 3

/** Asks the first broker within reach. The client's `metadata` throws for one bad partition. */
export async function describeTopics(
  client: Base,
  bootstrap: readonly string[],
  names: readonly string[],
  withRights = false,
): Promise<MetadataAnswer> {
  const api = await usableApi(client, 'Metadata', METADATA_APIS)
  const connection = await client.connections.getFirstAvailable(bootstrap.map(addressOf))
  return api
    .async(connection, [...names], false, withRights)
    .catch((error: unknown) => partialAnswer(error, isMetadata))
}

/** No topic may be missing. */
const NONE: ReadonlySet<string> = new Set()

/**
 * Requests the topics.
 * @param mayLack topics that are left out if they are missing
 * @throws TapelineError `KAFKA` if others are missing; other errors without an answer
 */
export async function clusterLayout(
  client: Base,
  bootstrap: readonly string[],
  names: readonly string[],
  mayLack: ReadonlySet<string> = NONE,
): Promise<ClusterLayout> {
  const { topics: described, brokers } = await describeTopics(client, bootstrap, names)
  const topics = withoutLacking(described, mayLack)
  refuseBroken(topics)
  return {
    topics: new Map(topics.map((topic) => [topic.name ?? '', layoutOf(topic)])),
    brokers: new Map(brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }])),
  }
}

/** Returns all but the missing ones of `mayLack`. */
export function withoutLacking(
  topics: readonly DescribedTopic[],
  mayLack: ReadonlySet<string> = NONE,
): DescribedTopic[] {
  return topics.filter(({ errorCode, name }) => errorCode !== UNKNOWN_TOPIC || !mayLack.has(name ?? ''))
}

/** @throws TapelineError `KAFKA` naming the missing topics; ResponseError for another error of one */
export function refuseBroken(topics: readonly DescribedTopic[]): void {
  const missing = topics.filter(({ errorCode }) => errorCode === UNKNOWN_TOPIC).map(({ name }) => name)
  if (missing.length > 0)
    throw new TapelineError('KAFKA', `A topic is missing on the broker: ${missing.join(', ')}`, {
      fix: 'Create the topics with: bin/tapeline topics init',
    })
  const errors = topics.flatMap(({ errorCode }, i): ResponseErrorWithLocation[] =>
    errorCode === 0 ? [] : [[`/topics/${i}`, [errorCode, null]]],
  )
  const { key, version } = metadataV12.api
  if (errors.length > 0) throw new ResponseError(key, version, Object.fromEntries(errors), { topics })
}

function layoutOf({ topicId, partitions }: DescribedTopic): TopicLayout {
  const sorted = partitions.toSorted((a, b) => a.partitionIndex - b.partitionIndex)
  return {
    id: topicId,
    partitions: sorted.length,
    leaders: sorted.map(({ leaderId }) => leaderId),
    leaderEpochs: sorted.map(({ leaderEpoch }) => leaderEpoch),
  }
}

function isMetadata(value: unknown): value is MetadataAnswer {
  return typeof value === 'object' && value !== null && 'topics' in value && 'brokers' in value
}

export const RETENTION = 'retention.ms'

export async function topicConfigs(
  admin: Admin,
  topics: readonly string[],
  names: readonly string[],
): Promise<Map<string, ReadonlyMap<string, string | null>>> {
  const described = await admin.describeConfigs({
    resources: topics.map((resourceName) => ({
      resourceType: ConfigResourceTypes.TOPIC,
      resourceName,
      configurationKeys: [...names],
    })),
  })
  return new Map(
    described.map(({ resourceName, configs }) => [
      resourceName,
      new Map(configs.map(({ name, value }) => [name, value ?? null])),
    ]),
  )
}

/**
 * Returns how long each topic keeps a message, in milliseconds, from `retention.ms` of the topic or
 * broker; infinite for −1. `retention.bytes` may remove messages earlier. Needs the right
 * DESCRIBE_CONFIGS if the cluster uses ACLs; topics that cannot be read are left out.
 */
export async function topicRetentionMs(
  connection: KafkaConnection,
  clientId: string,
  topics: readonly string[],
): Promise<Map<string, number>> {
  const configs = await withAdmin(connection, clientId, (admin) => topicConfigs(admin, topics, [RETENTION]))
  return new Map(
    [...configs].flatMap(([topic, values]) => {
      const value = values.get(RETENTION) ?? ''
      if (!/^-?\d+$/.test(value)) return []
      return [[topic, value === '-1' ? Number.POSITIVE_INFINITY : Number(value)] as const]
    }),
  )
}
