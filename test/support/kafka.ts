import { randomBytes } from 'node:crypto'
import { ConfigResourceTypes, IncrementalAlterConfigOperationTypes } from '@platformatic/kafka'
import { withAdmin } from './kafka-clients.ts'
import { until } from './wait-for.ts'

export const BROKERS_VARIABLE = 'TAPELINE_TEST_KAFKA_BROKERS'

/** The topics of one test, on the broker shared by all tests. */
export type TestTopics = ReturnType<typeof uniqueTopics>

const TOPIC_SETTINGS = {
  KAFKA_TRADES_TOPIC: 'trades',
  KAFKA_BOOK_TICKER_TOPIC: 'book_ticker',
  KAFKA_DEPTH_TOPIC: 'depth',
  KAFKA_GAPS_TOPIC: 'gaps',
  KAFKA_CHECKPOINTS_TOPIC: 'checkpoints',
  KAFKA_DEAD_LETTERS_TOPIC: 'dead_letters',
} as const

export type TopicSetting = keyof typeof TOPIC_SETTINGS

/** The brokers started by the test run, as "host:port". */
export function brokers(): string[] {
  const value = process.env[BROKERS_VARIABLE]
  if (value === undefined || value === '') {
    throw new Error(`${BROKERS_VARIABLE} is not set. Run this file through: npm test -- <part of its name>`)
  }
  return value.split(',')
}

/** Unique names; creates no topics. */
export function uniqueTopics(prefix = 'test') {
  const unique = `${prefix}-${randomBytes(5).toString('hex')}`
  const names = Object.entries(TOPIC_SETTINGS).map(([setting, name]) => [setting, `${unique}.${name}`])
  const topics: Readonly<Record<TopicSetting, string>> = Object.fromEntries(names)
  /** Deletes every topic with this prefix, including those created by others. */
  const remove = () => deleteTopics(`${unique}.`)
  return {
    prefix: unique,
    /** Settings for a command's environment: names of the six topics, the brokers and a group. */
    env: { ...topics, KAFKA_BROKERS: brokers().join(), KAFKA_GROUP_ID: `${unique}-group` },
    delete: remove,
    [Symbol.asyncDispose]: remove,
  }
}

/** The six topics under unique names, created with the broker's default configuration. */
export async function createTestTopics(
  options: { prefix?: string; partitions?: number } = {},
): Promise<TestTopics> {
  const topics = uniqueTopics(options.prefix)
  const names = Object.keys(TOPIC_SETTINGS).map((setting) => topics.env[setting as TopicSetting])
  await createTopics(names, options.partitions ?? 3)
  return topics
}

/** Resolves when every partition has a leader: earlier a producer's first request may fail. */
export async function createTopics(names: readonly string[], partitions: number): Promise<void> {
  await withAdmin(brokers(), async (admin) => {
    await admin.createTopics({ topics: names.map((topic) => ({ topic, partitions, replicas: 1 })) })
    await until(`leaders of ${names.join()}`, async () => {
      const metadata = await admin.metadata({ topics: [...names], forceUpdate: true })
      return names.every((name) =>
        metadata.topics.get(name)?.partitions.every((partition) => partition.leader >= 0),
      )
    })
  })
}

/** Deletes a topic and creates an empty one with the same name and another id. */
export async function recreateTopic(name: string, partitions: number): Promise<void> {
  await deleteTopic(name)
  await createTopics([name], partitions)
}

export async function deleteTopic(name: string): Promise<void> {
  await withAdmin(brokers(), (admin) => admin.deleteTopics({ topics: [name] }))
  await until(`${name} to be gone`, () =>
    withAdmin(brokers(), async (admin) => !(await admin.listTopics()).includes(name)),
  )
}

/** Changes settings of a topic; resolves when the broker has applied them. */
export async function setTopicConfig(topic: string, config: Readonly<Record<string, string>>): Promise<void> {
  await withAdmin(brokers(), (admin) =>
    admin.incrementalAlterConfigs({
      resources: [
        {
          resourceType: ConfigResourceTypes.TOPIC,
          resourceName: topic,
          configs: Object.entries(config).map(([name, value]) => ({
            name,
            configOperation: IncrementalAlterConfigOperationTypes.SET,
            value,
          })),
        },
      ],
    }),
  )
}

async function deleteTopics(prefix: string): Promise<void> {
  await withAdmin(brokers(), async (admin) => {
    const topics = (await admin.listTopics()).filter((name) => name.startsWith(prefix))
    if (topics.length > 0) await admin.deleteTopics({ topics })
  })
}
