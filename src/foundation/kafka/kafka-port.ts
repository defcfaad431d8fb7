import type { ByteSlice } from '../runtime/byte-slice.ts'
import { type NeededRights, requireAccess } from './access.ts'
import { PartitionRecords } from './codec/partition-records.ts'
import type { KafkaConnection } from './connection.ts'
import { PartitionFetcher } from './partition-fetcher.ts'
import { type Compression, createProducer } from './producer.ts'
import { type TopicMetadata, topicMetadata } from './topic-metadata.ts'

/** A message to be produced. */
export interface OutgoingRecord {
  readonly topic: string
  readonly partition: number
  readonly key: Buffer | null
  readonly value: Buffer | null
  /** Stands for the value, where it has no buffer of its own. */
  readonly slice?: ByteSlice
  readonly headers: Map<Buffer, Buffer>
  /** Milliseconds since the Unix epoch. */
  readonly timestampMs: number
}

/** The offset of the first message of a partition in a send; −1 when the broker no longer remembers it. */
export interface BaseOffset {
  readonly topic: string
  readonly partition: number
  readonly offset: number
}

/** An idempotent producer, of which exactly one `send` is outstanding. An error it throws is final: make another. */
export interface RecordProducer {
  /** Ids and partition counts of topics. @throws TapelineError `KAFKA` when one is missing */
  topics(names: readonly string[]): Promise<Map<string, TopicMetadata>>
  /** Resolves once all in-sync replicas have every record; waits for brokers that are away. */
  send(records: readonly OutgoingRecord[]): Promise<readonly BaseOffset[]>
  close(): Promise<void>
}

export type RecordFetcher = Pick<
  PartitionFetcher,
  'connect' | 'leaderOf' | 'offsetRanges' | 'fetch' | 'close'
>

/** Kafka as a service meets it; a simulation has one in memory. */
export interface KafkaPort {
  /** Ids and partition counts of topics; see {@link requireAccess}. */
  requireAccess(clientId: string, needed: NeededRights): Promise<Map<string, TopicMetadata>>
  /** @param clientId shown in the broker's logs and metrics */
  producer(clientId: string, compression: Compression): RecordProducer
  fetcher(clientId: string, topics: readonly string[]): RecordFetcher
}

/** Real brokers. */
export function kafkaPort(connection: KafkaConnection): KafkaPort {
  return {
    requireAccess: (clientId, needed) => requireAccess(connection, clientId, needed),
    producer(clientId, compression) {
      const client = createProducer(connection, clientId, compression)
      return {
        topics: (names) => topicMetadata(client, names),
        async send(records) {
          const { offsets } = await client.send({ messages: byPartition(records) })
          return (offsets ?? []).map(({ topic, partition, offset }) => ({
            topic,
            partition,
            offset: Number(offset),
          }))
        },
        close: () => client.close(true),
      }
    },
    fetcher: (clientId, topics) => new PartitionFetcher(connection, clientId, topics),
  }
}

/** One message for each partition, which carries its records in their order. */
function byPartition(
  records: readonly OutgoingRecord[],
): Array<{ topic: string; partition: number; value: PartitionRecords }> {
  const places = new Map<string, Map<number, OutgoingRecord[]>>()
  for (const record of records) {
    let inTopic = places.get(record.topic)
    if (inTopic === undefined) {
      inTopic = new Map()
      places.set(record.topic, inTopic)
    }
    const inPartition = inTopic.get(record.partition)
    if (inPartition === undefined) inTopic.set(record.partition, [record])
    else inPartition.push(record)
  }
  return [...places].flatMap(([topic, partitions]) =>
    [...partitions].map(([partition, of]) => ({ topic, partition, value: new PartitionRecords(of) })),
  )
}
