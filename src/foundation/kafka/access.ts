import { AclOperations, type Admin, FindCoordinatorKeyTypes } from '@platformatic/kafka'
import { type BackoffPolicy, retry, unlessAborted } from '../runtime/backoff.ts'
import { describeError, isTapelineError, TapelineError } from '../runtime/errors.ts'
import type { ServicePorts } from '../telemetry/service.ts'
import { REQUESTS } from './broker-connections.ts'
import { kafkaConnectionError, TOPIC_AUTHORIZATION_FAILED } from './broker-errors.ts'
import { hasKafkaError, usableApi, withAdmin } from './client.ts'
import type { KafkaConnection } from './config.ts'
import {
  type DescribedTopic,
  describeTopics,
  refuseBroken,
  type TopicMetadata,
  withoutLacking,
} from './topic-metadata.ts'

export type TopicRight = 'READ' | 'WRITE'

/** The rights that a service needs: per topic name, and for the group that it joins. */
export interface NeededRights {
  readonly topics: ReadonlyMap<string, readonly TopicRight[]>
  readonly group?: string
  /** Topics that need not exist. */
  readonly mayLack?: ReadonlySet<string>
}

/** The two rights, by the names that Kafka uses in ACLs and messages. */
const BITS: Readonly<Record<TopicRight, number>> = {
  READ: 1 << AclOperations.READ,
  WRITE: 1 << AclOperations.WRITE,
}

/**
 * Waits until a broker answers and grants the rights.
 *
 * @returns the topics that exist
 * @throws TapelineError `ACCESS` when an operator must grant rights; the signal's reason when it aborts
 */
export async function awaitAccess(
  { kafka, backoff }: { readonly kafka: KafkaConnection; readonly backoff: BackoffPolicy },
  clientId: string,
  needed: NeededRights,
  ports: ServicePorts,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, TopicMetadata>> {
  const ask = () => unlessAborted(requireAccess(kafka, clientId, needed), signal)
  const warn = (error: unknown) => {
    if (isTapelineError(error) && error.code !== 'KAFKA') throw error
    const details = isTapelineError(error) ? { fix: error.fix } : { err: error }
    ports.log.warn(details, `Kafka cannot be used yet, retrying: ${describeError(error)}`)
  }
  return retry(ask, warn, backoff, ports, signal)
}

/**
 * Connects like the services and checks that they have their rights. A missing right would
 * otherwise show days later, at the first gap. A producer would retry even a refused certificate.
 * @returns ids and partition counts of the topics that exist
 * @throws TapelineError `ACCESS` naming the wrong setting or all missing rights, `KAFKA` naming
 *   missing topics or a request whose versions the brokers do not support; other errors if no
 *   broker answers
 */
export async function requireAccess(
  connection: KafkaConnection,
  clientId: string,
  needed: NeededRights,
): Promise<Map<string, TopicMetadata>> {
  const where = `Kafka at ${connection.brokers.join()}`
  try {
    return await withAdmin(connection, `${clientId}-access`, async (admin) => {
      for (const [request, versions] of Object.entries(REQUESTS)) await usableApi(admin, request, versions)
      const described = await describeTopics(admin, connection.brokers, [...needed.topics.keys()], true)
      const topics = withoutLacking(described.topics, needed.mayLack)
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
      refuseBroken(topics)
      return new Map(
        topics.map(({ name, topicId, partitions }) => [
          name ?? '',
          { id: topicId, partitions: partitions.length },
        ]),
      )
    })
  } catch (error) {
    throw isTapelineError(error) ? error : (kafkaConnectionError(error, connection, where) ?? error)
  }
}

function lackingOf(topic: DescribedTopic, rights: readonly TopicRight[]): string[] {
  // Other errors are reported afterwards.
  if (topic.errorCode !== 0 && topic.errorCode !== TOPIC_AUTHORIZATION_FAILED) return []
  // For a topic that the user must not see, the bits are unset or unknown.
  const bits = topic.errorCode === 0 ? topic.topicAuthorizedOperations : 0
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
