import {
  alterPartitionReassignmentsV0,
  Base,
  type Connection,
  createAPI,
  metadataV12,
  protocolErrorsCodesById,
  type Reader,
  Writer,
} from '@platformatic/kafka'
import { clientOptions, guardConnections, partialAnswer } from '../src/foundation/kafka/client.ts'
import { describeError } from '../src/foundation/runtime/errors.ts'
import type { PartitionState } from '../test/support/kafka-cluster.ts'

/** A partition and its intended replicas, the preferred leader first. */
export interface Assignment {
  readonly topic: string
  readonly partition: number
  readonly replicas: readonly number[]
}

/**
 * API key of the request, and its version with compact lengths. The client does not implement it.
 */
const ELECT_LEADERS = { key: 43, version: 2 } as const
const PREFERRED = 0
const LIMIT_MS = 20_000
/** No election was possible: the replica leads already, or it is down. */
const NOT_ELECTED = new Set(['ELECTION_NOT_NEEDED', 'PREFERRED_LEADER_NOT_AVAILABLE'])

interface Elected {
  readonly error: string
  readonly partitions: ReadonlyArray<{ readonly name: string; readonly error: string }>
}

const electLeaders = createAPI<[], Elected>(
  ELECT_LEADERS.key,
  ELECT_LEADERS.version,
  // A null list means all partitions.
  () =>
    Writer.create().appendInt8(PREFERRED).appendUnsignedVarInt(0).appendInt32(LIMIT_MS).appendTaggedFields(),
  (_correlationId, _key, _version, reader) => {
    reader.readInt32() // Throttle time, not used.
    const error = errorName(reader.readInt16())
    const partitions = reader.readArray(() => {
      const topic = reader.readString()
      return reader.readArray(() => readElection(topic, reader))
    })
    reader.readTaggedFields()
    return { error, partitions: partitions.flat() }
  },
)

function readElection(topic: string, reader: Reader) {
  const name = `${topic}/${reader.readInt32()}`
  const error = errorName(reader.readInt16())
  reader.readNullableString()
  return { name, error }
}

/**
 * Elects the preferred leader (the first replica) of every partition.
 *
 * @returns how many partitions changed their leader
 */
export async function electPreferredLeaders(brokers: readonly string[]): Promise<number> {
  const { error, partitions } = await ask(brokers, (connection) => electLeaders.async(connection))
  const failed = partitions.filter((one) => one.error !== '' && !NOT_ELECTED.has(one.error))
  if (!['', ...NOT_ELECTED].includes(error) || failed.length > 0) {
    throw new Error(`No election: ${[error, ...failed.map((one) => `${one.name} ${one.error}`)].join(' ')}`)
  }
  return partitions.filter((one) => one.error === '').length
}

/**
 * Describes every partition of these topics, which may be Kafka's internal ones.
 *
 * @throws if a topic does not exist
 */
export async function describePartitions(
  brokers: readonly string[],
  topics: readonly string[],
): Promise<PartitionState[]> {
  const answer = await ask(brokers, (connection) =>
    metadataV12.api
      .async(connection, [...topics], false, false)
      .catch((error: unknown) => partialAnswer(error, isMetadata)),
  )
  return answer.topics.flatMap(({ name, errorCode, partitions }) => {
    if (name == null || partitions.length === 0) throw new Error(`${name}: ${errorName(errorCode)}`)
    return partitions.map(({ partitionIndex, leaderId, replicaNodes, isrNodes }) => ({
      topic: name,
      partition: partitionIndex,
      leader: leaderId,
      replicas: replicaNodes,
      inSync: isrNodes,
    }))
  })
}

function isMetadata(value: unknown): value is metadataV12.MetadataResponse {
  return typeof value === 'object' && value !== null && 'topics' in value
}

/**
 * Sends a reassignment to the brokers. Resolves when they have accepted it, before they copy data.
 */
export async function reassign(
  brokers: readonly string[],
  assignments: readonly Assignment[],
): Promise<void> {
  const topics = [...Map.groupBy(assignments, ({ topic }) => topic)].map(([name, own]) => ({
    name,
    partitions: own.map(({ partition, replicas }) => ({
      partitionIndex: partition,
      replicas: [...replicas],
    })),
  }))
  await ask(brokers, (connection) =>
    alterPartitionReassignmentsV0.api.async(connection, LIMIT_MS, true, topics),
  )
}

/** Tries one broker after the other until one succeeds. */
async function ask<Answer>(
  brokers: readonly string[],
  request: (connection: Connection) => Promise<Answer>,
): Promise<Answer> {
  const failures: string[] = []
  for (const broker of brokers) {
    const client = guardConnections(
      new Base({
        ...clientOptions({ brokers: [broker], tls: null, sasl: null }, 'tapeline-chaos'),
        timeout: LIMIT_MS,
        retries: 0,
      }),
    )
    try {
      const [host = '', port] = broker.split(':')
      return await request(await client.connections.get({ host, port: Number(port) }))
    } catch (error) {
      failures.push(`${broker}: ${describeError(error)}`)
    } finally {
      await client.close()
    }
  }
  throw new Error(`Every broker failed the request: ${failures.join('; ')}`)
}

function errorName(code: number): string {
  return code === 0 ? '' : (protocolErrorsCodesById[code] ?? String(code))
}
