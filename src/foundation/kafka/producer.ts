import { ProduceAcks, type Producer } from '@platformatic/kafka'
import { clientOptions } from './client.ts'
import type { PartitionRecords } from './codec/partition-records.ts'
import { SendingProducer } from './codec/produce-api.ts'
import type { KafkaConnection } from './connection.ts'

export type Compression = 'lz4' | 'none' | 'gzip' | 'snappy' | 'zstd'

/** Keys and values may be null, which Kafka tells from empty ones. */
export type KafkaProducerClient = Producer<Buffer | null, Buffer | null | PartitionRecords, Buffer, Buffer>

/**
 * An idempotent producer that waits for all in-sync replicas.
 *
 * Callers keep exactly one `send()` outstanding: with two, a batch that is retried can land after a later one, and
 * a crash between them leaves a hole below the highest id. Its retries are endless; an error it throws is final,
 * and then it is to be closed and made anew.
 */
export function createProducer(
  connection: KafkaConnection,
  clientId: string,
  compression: Compression,
): KafkaProducerClient {
  return new SendingProducer({
    ...clientOptions(connection, clientId),
    idempotent: true,
    acks: ProduceAcks.ALL,
    compression,
    maxInflights: 1,
  })
}
