import { Admin, ConfigResourceTypes } from '@platformatic/kafka'
import { clientOptions, closeClient, guardConnections } from './client.ts'
import type { KafkaConnection } from './connection.ts'

const RETENTION = 'retention.ms'

/**
 * Returns how long each topic keeps a message, in milliseconds, from `retention.ms` of the topic or
 * broker; infinite for −1. `retention.bytes` may remove messages earlier. Needs the right
 * DESCRIBE_CONFIGS if the cluster uses ACLs.
 *
 * @returns the topics whose configuration could be read
 */
export async function topicRetentionMs(
  connection: KafkaConnection,
  clientId: string,
  topics: readonly string[],
): Promise<Map<string, number>> {
  const admin = guardConnections(new Admin({ ...clientOptions(connection, clientId), retries: 0 }))
  try {
    const described = await admin.describeConfigs({
      resources: topics.map((resourceName) => ({
        resourceType: ConfigResourceTypes.TOPIC,
        resourceName,
        configurationKeys: [RETENTION],
      })),
    })
    return new Map(
      described.flatMap(({ resourceName, configs }) => {
        const value = configs.find(({ name }) => name === RETENTION)?.value ?? ''
        if (!/^-?\d+$/.test(value)) return []
        return [[resourceName, value === '-1' ? Number.POSITIVE_INFINITY : Number(value)] as const]
      }),
    )
  } finally {
    await closeClient(admin)
  }
}
