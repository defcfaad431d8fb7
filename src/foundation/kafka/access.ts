import {
  AclOperations,
  Admin,
  type Connection,
  FindCoordinatorKeyTypes,
  metadataV12,
} from '@platformatic/kafka'
import { TapelineError } from '../runtime/errors.ts'
import { kafkaConnectionError } from './broker-errors.ts'
import { clientOptions, closeClient, guardConnections, hasKafkaError } from './client.ts'
import type { KafkaConnection } from './connection.ts'
import { type TopicMetadata, topicMetadata } from './topic-metadata.ts'

export type TopicRight = 'READ' | 'WRITE'

/** The rights that a service needs: per topic name, and for the group that it joins. */
export interface NeededRights {
  readonly topics: ReadonlyMap<string, readonly TopicRight[]>
  readonly group?: string
}

/** The two rights, by the names that Kafka uses in ACLs and messages. */
const BITS: Readonly<Record<TopicRight, number>> = {
  READ: 1 << AclOperations.READ,
  WRITE: 1 << AclOperations.WRITE,
}

/** This version of Metadata includes the caller's rights; brokers support it since Kafka 3.1. */
const METADATA = metadataV12.api

/**
 * Connects like the services and checks that they have their rights. A missing right would
 * otherwise show when it is first needed, perhaps days later at the first gap.
 *
 * It uses a separate client that fails soon: a producer would retry without a limit or message,
 * even if the broker refuses its certificate.
 *
 * @returns ids and partition counts of the topics
 * @throws TapelineError `ACCESS` naming the wrong setting or all missing rights, `KAFKA` naming
 *   missing topics; other errors if no broker answers
 */
export async function requireAccess(
  connection: KafkaConnection,
  clientId: string,
  needed: NeededRights,
): Promise<Map<string, TopicMetadata>> {
  const where = `Kafka at ${connection.brokers.join()}`
  const admin = guardConnections(
    new Admin({ ...clientOptions(connection, `${clientId}-access`), retries: 0 }),
  )
  try {
    const broker = await connect(admin)
    const names = [...needed.topics.keys()]
    const apis = await admin.listApis()
    // An older broker does not report rights: a missing one shows when it is needed.
    if (!apis.some(({ name, maxVersion }) => name === 'Metadata' && maxVersion >= METADATA.version))
      return await topicMetadata(admin, names)
    const topics = await describeTopics(broker, names)
    const lacking = [
      ...topics.flatMap((topic) => lackingOf(topic, needed.topics.get(topic.name ?? '') ?? [])),
      ...(await lackingGroup(admin, needed.group)),
    ]
    if (lacking.length > 0) {
      const who = connection.sasl === null ? 'this client' : `user ${connection.sasl.username}`
      throw new TapelineError('ACCESS', `${where}: ${who} lacks the right ${lacking.join(', ')}`, {
        fix: 'Grant it with ACLs; docs/security.md lists what each service needs.',
      })
    }
    refuseMissing(topics)
    return new Map(
      topics.map(({ name, topicId, partitions }) => [
        name ?? '',
        { id: topicId, partitions: partitions.length },
      ]),
    )
  } catch (error) {
    throw error instanceof TapelineError ? error : (kafkaConnectionError(error, connection, where) ?? error)
  } finally {
    await closeClient(admin)
  }
}

async function connect(admin: Admin): Promise<Connection> {
  const [broker] = (await admin.connectToBrokers()).values()
  if (broker === undefined) throw new Error('No broker is available')
  return broker
}

type MetadataResponse = Awaited<ReturnType<typeof METADATA.async>>
type DescribedTopic = MetadataResponse['topics'][number]

async function describeTopics(broker: Connection, names: string[]): Promise<readonly DescribedTopic[]> {
  try {
    return (await METADATA.async(broker, names, false, true)).topics
  } catch (error) {
    // Errors of single topics are in the answer and handled separately.
    const response: unknown = error instanceof Error ? Reflect.get(error, 'response') : undefined
    if (isMetadata(response)) return response.topics
    throw error
  }
}

function isMetadata(value: unknown): value is MetadataResponse {
  return typeof value === 'object' && value !== null && 'topics' in value && 'brokers' in value
}

const TOPIC_AUTHORIZATION_FAILED = 29
const UNKNOWN_TOPIC = 3

function lackingOf(topic: DescribedTopic, rights: readonly TopicRight[]): string[] {
  // For a topic that the user must not see, the bits are unset or unknown.
  const bits = topic.errorCode === TOPIC_AUTHORIZATION_FAILED ? 0 : topic.topicAuthorizedOperations
  if (topic.errorCode === UNKNOWN_TOPIC) return []
  return rights
    .filter((right) => (bits & BITS[right]) === 0)
    .map((right) => `${right} on topic ${topic.name}`)
}

/** Finding the coordinator of a group needs the right to read the group. */
async function lackingGroup(admin: Admin, group: string | undefined): Promise<string[]> {
  if (group === undefined) return []
  try {
    await admin.findCoordinator({ keyType: FindCoordinatorKeyTypes.GROUP, keys: [group] })
  } catch (error) {
    if (hasKafkaError(error, 'GROUP_AUTHORIZATION_FAILED')) return [`READ on group ${group}`]
    // A missing coordinator says nothing about rights.
    if (!hasKafkaError(error, 'COORDINATOR_NOT_AVAILABLE')) throw error
  }
  return []
}

function refuseMissing(topics: readonly DescribedTopic[]): void {
  const missing = topics.filter(({ errorCode }) => errorCode === UNKNOWN_TOPIC).map(({ name }) => name)
  if (missing.length > 0) {
    throw new TapelineError('KAFKA', `A topic is missing on the broker: ${missing.join(', ')}`, {
      fix: 'Create the topics with: bin/tapeline topics init',
    })
  }
  const broken = topics.find(({ errorCode }) => errorCode !== 0)
  if (broken !== undefined) throw new Error(`Topic ${broken.name}: error ${broken.errorCode}`)
}
