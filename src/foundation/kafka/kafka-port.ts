import type { Clock } from '../runtime/clock.ts'
import { type NeededRights, requireAccess } from './access.ts'
import { realBrokers } from './broker-connections.ts'
import type { KafkaConnection } from './config.ts'
import { PartitionFetcher } from './partition-fetcher.ts'
import { type Compression, RecordSender } from './record-sender.ts'
import type { TopicMetadata } from './topic-metadata.ts'

export type RecordProducer = Pick<RecordSender, 'topics' | 'send' | 'close'>

export type RecordFetcher = Pick<
  PartitionFetcher,
  'connect' | 'leaderOf' | 'offsetRanges' | 'fetch' | 'read' | 'close'
>

/** Kafka as the services use it; a simulation has an in-memory one. */
export interface KafkaPort {
  /** Returns ids and partition counts of topics; see {@link requireAccess}. */
  requireAccess(clientId: string, needed: NeededRights): Promise<Map<string, TopicMetadata>>
  /** @param clientId shown in the broker's logs and metrics */
  producer(clientId: string, compression: Compression): RecordProducer
  fetcher(clientId: string, topics: readonly string[]): RecordFetcher
}

export function kafkaPort(connection: KafkaConnection, clock?: Clock): KafkaPort {
  const to = realBrokers(clock)
  return {
    requireAccess: (clientId, needed) => requireAccess(connection, clientId, needed),
    producer: (clientId, compression) => new RecordSender(connection, clientId, compression, to),
    fetcher: (clientId, topics) => new PartitionFetcher(connection, clientId, topics, to),
  }
}
