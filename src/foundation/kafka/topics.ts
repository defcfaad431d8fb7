import type { Admin } from '@platformatic/kafka'
import { describeError, TapelineError } from '../runtime/errors.ts'
import type { Settings } from '../settings/load.ts'
import { withOrigin } from '../settings/load.ts'
import { kafkaConnectionError } from './broker-errors.ts'
import { hasKafkaError, withAdmin } from './client.ts'
import { archivedDaysTopic, kafkaConnection, type TopicNames, topicNames } from './config.ts'
import { RETENTION, topicConfigs } from './topic-metadata.ts'

/** The intended state of a topic. `configs` has only what Tapeline sets. */
export interface TopicSpec {
  readonly name: string
  readonly partitions: number
  /** −1: the broker's default. */
  readonly replicas: number
  readonly configs: Readonly<Record<string, string>>
}

export interface TopicReport {
  readonly name: string
  readonly partitions: number
  readonly state: 'created' | 'present' | 'differs' | 'missing'
  /** Each as "partitions is 1, expected 3". */
  readonly differences: readonly string[]
}

const HOUR_MS = 3_600_000

/** A dead letter contains the original message and headers. */
const DEAD_LETTER_MAX_BYTES = 2 * 1024 * 1024

/**
 * A checkpoint lists every open gap of its symbol: tens of thousands after a bad day. An archived day
 * lists every symbol.
 */
const COMPACTED_MAX_BYTES = 8 * 1024 * 1024

/** The active segment is never compacted, and every start of ingestion reads it entirely. */
const COMPACTED_SEGMENT_BYTES = 16 * 1024 * 1024

export function topicSpecs(settings: Settings): TopicSpec[] {
  const names = topicNames(settings)
  const retention = settings.KAFKA_RETENTION_HOURS
  const minInsync = settings.KAFKA_MIN_INSYNC_REPLICAS
  const shared: Record<string, string> = {
    'message.timestamp.type': 'CreateTime',
    ...(minInsync === undefined ? {} : { 'min.insync.replicas': String(minInsync) }),
  }
  const events = retention === undefined ? {} : { [RETENTION]: String(retention * HOUR_MS) }
  const forEver = { [RETENTION]: '-1', 'retention.bytes': '-1' }
  const compacted = {
    'cleanup.policy': 'compact',
    'max.message.bytes': String(COMPACTED_MAX_BYTES),
    'segment.bytes': String(COMPACTED_SEGMENT_BYTES),
    'segment.ms': String(HOUR_MS),
  }
  const configs: Record<keyof TopicNames, Record<string, string>> = {
    trades: events,
    bookTicker: events,
    depth: events,
    gaps: forEver,
    checkpoints: compacted,
    deadLetters: { ...forEver, 'max.message.bytes': String(DEAD_LETTER_MAX_BYTES) },
  }
  const replicas = settings.KAFKA_REPLICATION_FACTOR ?? -1
  const specs = (Object.keys(configs) as Array<keyof TopicNames>).map((topic) => ({
    name: names[topic],
    partitions: settings.KAFKA_PARTITIONS,
    replicas,
    configs: { ...shared, ...configs[topic] },
  }))
  const archivedDays = archivedDaysTopic(settings)
  if (archivedDays !== null)
    specs.push({ name: archivedDays, partitions: 1, replicas, configs: { ...shared, ...compacted } })
  return specs
}

/** Creates missing topics; never changes existing ones. @throws TapelineError `KAFKA` if brokers refuse */
export function initTopics(settings: Settings): Promise<TopicReport[]> {
  return lookAtTopics(settings, true)
}

/** Compares the topics likewise without creating any: absent ones are `missing`. */
export function inspectTopics(settings: Settings): Promise<TopicReport[]> {
  return lookAtTopics(settings, false)
}

async function lookAtTopics(settings: Settings, creates: boolean): Promise<TopicReport[]> {
  const connection = kafkaConnection(settings)
  const look = async (admin: Admin): Promise<TopicReport[]> => {
    const present = new Set(await admin.listTopics())
    const reports: TopicReport[] = []
    for (const spec of topicSpecs(settings)) {
      const { name, partitions } = spec
      if (present.has(name) || (creates && !(await createTopic(admin, spec))))
        reports.push(await compareTopic(admin, spec))
      else reports.push({ name, partitions, state: creates ? 'created' : 'missing', differences: [] })
    }
    return reports
  }
  try {
    return await withAdmin(connection, 'tapeline-topics', look, {})
  } catch (error) {
    const brokers = withOrigin(settings, 'KAFKA_BROKERS', settings.KAFKA_BROKERS.join())
    const where = `Topics cannot be ${creates ? 'created or ' : ''}checked on ${brokers}`
    const refusal = kafkaConnectionError(error, connection, where)
    if (refusal !== null) throw refusal
    if (hasKafkaError(error, 'INVALID_REPLICATION_FACTOR')) throw tooFewBrokers(settings, where, error)
    throw new TapelineError('KAFKA', `${where}: ${describeError(error)}`, {
      fix: settings.isSet('KAFKA_BROKERS')
        ? 'Check that KAFKA_BROKERS names running brokers and that this user may create topics.'
        : 'Set KAFKA_BROKERS to running brokers; `bin/tapeline up` starts one automatically.',
      cause: error,
    })
  }
}

/** Returns false if another process has created it meanwhile. */
async function createTopic(admin: Admin, spec: TopicSpec): Promise<boolean> {
  try {
    await admin.createTopics({
      topics: [{ topic: spec.name, partitions: spec.partitions, replicas: spec.replicas }],
      configs: Object.entries(spec.configs).map(([name, value]) => ({ name, value })),
    })
    return true
  } catch (error) {
    if (hasKafkaError(error, 'TOPIC_ALREADY_EXISTS')) return false
    throw error
  }
}

async function compareTopic(admin: Admin, spec: TopicSpec): Promise<TopicReport> {
  const metadata = await admin.metadata({ topics: [spec.name], forceUpdate: true })
  const topic = metadata.topics.get(spec.name)
  const partitions = topic?.partitionsCount ?? 0
  const replicas = topic?.partitions[0]?.replicas.length ?? 0
  const actual = (await topicConfigs(admin, [spec.name], Object.keys(spec.configs))).get(spec.name)
  const expected: Array<readonly [name: string, is: string, should: string]> = [
    ['partitions', String(partitions), String(spec.partitions)],
    ...(spec.replicas === -1 ? [] : [['replicas', String(replicas), String(spec.replicas)] as const]),
    ...Object.entries(spec.configs).map(
      ([name, value]) => [name, actual?.get(name) ?? 'unset', value] as const,
    ),
  ]
  const differences = expected
    .filter(([, is, should]) => is !== should)
    .map(([name, is, should]) => `${name} is ${is}, expected ${should}`)
  return { name: spec.name, partitions, state: differences.length === 0 ? 'present' : 'differs', differences }
}

function tooFewBrokers(settings: Settings, where: string, cause: unknown): TapelineError {
  const factor = settings.KAFKA_REPLICATION_FACTOR
  return new TapelineError(
    'KAFKA',
    `${where}: there are fewer brokers than ${factor === undefined ? 'the replicas of their default.replication.factor' : `KAFKA_REPLICATION_FACTOR=${factor}`}`,
    { fix: 'Set KAFKA_REPLICATION_FACTOR to at most the number of brokers; 1 for a single broker.', cause },
  )
}
