import { Admin } from '@platformatic/kafka'
import { clientOptions } from '../../src/foundation/kafka/client.ts'

export async function createTopics(brokers: string, names: readonly string[]): Promise<void> {
  const admin = new Admin(
    clientOptions({ brokers: brokers.split(','), tls: null, sasl: null }, 'tapeline-bench'),
  )
  try {
    await admin.createTopics({ topics: names.map((topic) => ({ topic, partitions: 3, replicas: 1 })) })
  } finally {
    await admin.close()
  }
}
