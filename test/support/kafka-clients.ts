import { Admin } from '@platformatic/kafka'
import type { KafkaConnection } from '../../src/foundation/kafka/config.ts'
import { type OutgoingRecord, RecordSender } from '../../src/foundation/kafka/record-sender.ts'

/** Runs `work` with an admin client of these brokers, and closes it. */
export async function withAdmin<Result>(
  brokers: readonly string[],
  work: (admin: Admin) => Promise<Result>,
): Promise<Result> {
  const admin = new Admin({
    clientId: 'tapeline-test',
    bootstrapBrokers: [...brokers],
    timeout: 10_000,
    strict: true,
  })
  try {
    return await work(admin)
  } finally {
    await admin.close()
  }
}

/** A connection to plaintext listeners. */
export function connectionTo(brokers: readonly string[]): KafkaConnection {
  return { brokers, tls: null, sasl: null }
}

/** A record with what a test leaves open. */
export function outgoing(record: Partial<OutgoingRecord> & Pick<OutgoingRecord, 'topic'>): OutgoingRecord {
  return { partition: 0, key: null, value: null, headers: new Map(), timestampMs: Date.now(), ...record }
}

/** Sends records in order, 1,000 at a time. */
export async function sendRecords(
  connection: KafkaConnection,
  records: Iterable<OutgoingRecord>,
): Promise<void> {
  const sender = new RecordSender(connection, 'tapeline-test', 'lz4')
  try {
    let next: OutgoingRecord[] = []
    for (const record of records) {
      if (next.push(record) < 1000) continue
      await sender.send(next)
      next = []
    }
    if (next.length > 0) await sender.send(next)
  } finally {
    await sender.close()
  }
}
