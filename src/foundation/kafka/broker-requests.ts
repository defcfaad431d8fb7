import type { fetchV17, produceV11 } from '@platformatic/kafka'
import type { Clock } from '../runtime/clock.ts'
import type { FetchAnswer } from './codec/fetch-api.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import type { KafkaConnection } from './config.ts'
import type { TopicPartition } from './partition.ts'
import type { ClusterLayout } from './topic-metadata.ts'

export interface BrokerAddress {
  readonly host: string
  readonly port: number
}

/** The id of an idempotent producer, assigned by the brokers. */
export interface ProducerId {
  readonly producerId: bigint
  readonly producerEpoch: number
}

export type ProduceAnswer = produceV11.ProduceResponse

interface MetadataRequests {
  /** Asks a bootstrap broker. All topics must exist except those of `mayLack`; see `clusterLayout`. */
  metadata(topics: readonly string[], mayLack?: ReadonlySet<string>): Promise<ClusterLayout>
  /** Closes the connections. Running requests reject or never settle. */
  close(): Promise<void>
}

/** The requests of a producer, each sent once, without a limit. An answer has a result per partition. */
export interface ProduceRequests extends MetadataRequests {
  initProducerId(broker: BrokerAddress): Promise<ProducerId>
  /** @param isGivenUp checked before the batches are sent: they may have been retried elsewhere */
  produce(
    broker: BrokerAddress,
    replicasMs: number,
    batches: readonly PartitionBatch[],
    isGivenUp?: () => boolean,
  ): Promise<ProduceAnswer>
}

export interface FetchLimits {
  /** How long the broker may wait for `minBytes` to arrive. */
  readonly maxWaitMs: number
  readonly minBytes: number
  /**
   * In the broker's (compressed) bytes. Filled in the order of the request; only the first batch of
   * the answer is returned whatever its size (KIP-74).
   */
  readonly maxBytes: number
  /** The same per partition; 1 MiB by default. */
  readonly partitionMaxBytes?: number
}

export interface PartitionOffset extends TopicPartition {
  readonly offset: number
}

/** The requests of a reader. Fetch has a result per partition; it rejects if the whole request failed. */
export interface FetchRequests extends MetadataRequests {
  /**
   * Asks one broker for offsets of partitions that it leads. @returns those that it names
   * @param timestamp −2: the oldest; −1: the one after the last message that all in-sync replicas
   * have
   */
  offsets(node: number, partitions: readonly TopicPartition[], timestamp: bigint): Promise<PartitionOffset[]>
  fetch(node: number, topics: fetchV17.FetchRequestTopic[], limits: FetchLimits): Promise<FetchAnswer>
}

/** Everything below `RecordSender` and `PartitionFetcher`. A simulation has an in-memory cluster. */
export interface Brokers {
  readonly clock: Clock
  readonly random: () => number
  /** @param clientId shown in the broker's logs and metrics */
  openProducer(connection: KafkaConnection, clientId: string): ProduceRequests
  openFetcher(connection: KafkaConnection, clientId: string): FetchRequests
}
