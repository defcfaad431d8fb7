import type { FetchOptions, fetchV17, produceV11 } from '@platformatic/kafka'
import type { Clock } from '../runtime/clock.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import type { MessageBatch } from './codec/record-batch.ts'
import type { KafkaConnection } from './connection.ts'
import type { ClusterLayout } from './topic-metadata.ts'

/** Where a broker listens. */
export interface BrokerAddress {
  readonly host: string
  readonly port: number
}

/** An idempotent producer, as the brokers number it. */
export interface ProducerId {
  readonly producerId: bigint
  readonly producerEpoch: number
}

export type ProduceAnswer = produceV11.ProduceResponse

/** An answer to Fetch, its records read. */
export type FetchAnswer = Omit<fetchV17.FetchResponse, 'responses'> & {
  readonly responses: ReadonlyArray<{
    readonly topicId: string
    readonly partitions: ReadonlyArray<
      Omit<fetchV17.FetchResponsePartition, 'records'> & {
        readonly records?: ReadonlyArray<
          NonNullable<fetchV17.FetchResponsePartition['records']>[number] | MessageBatch
        > | null
      }
    >
  }>
}

interface MetadataRequests {
  /** Asks a bootstrap broker. All topics must exist; see `clusterLayout`. */
  metadata(topics: readonly string[]): Promise<ClusterLayout>
  /** Requests under way reject or never settle. */
  close(): Promise<void>
}

/** The requests of a producer. Each is made once, without a limit of time; an answer tells of each partition. */
export interface ProduceRequests extends MetadataRequests {
  initProducerId(broker: BrokerAddress): Promise<ProducerId>
  /**
   * @param replicasMs how long the broker may wait for its replicas
   * @param isGivenUp asked before the batches leave: they may have been repeated elsewhere
   */
  produce(
    broker: BrokerAddress,
    replicasMs: number,
    batches: readonly PartitionBatch[],
    isGivenUp?: () => boolean,
  ): Promise<ProduceAnswer>
}

/** The end of a partition: the offset after the last message that all in-sync replicas have. */
export interface PartitionEnd {
  readonly topic: string
  readonly partition: number
  readonly end: number
}

/** The requests of a reader. An answer to Fetch tells of each partition; it rejects when the request as a whole failed. */
export interface FetchRequests extends MetadataRequests {
  /** Asks the leaders. @returns offsets of each topic by partition. @throws while a partition has no leader */
  listOffsets(topics: readonly string[], timestamp: bigint): Promise<ReadonlyMap<string, readonly bigint[]>>
  /** Asks one broker for the ends of partitions that it leads. @returns those that it names */
  endOffsets(
    node: number,
    partitions: ReadonlyArray<{ readonly topic: string; readonly partition: number }>,
  ): Promise<PartitionEnd[]>
  fetch(options: FetchOptions<Buffer, Buffer, Buffer, Buffer>): Promise<FetchAnswer>
}

/**
 * Everything below `RecordSender` and `PartitionFetcher`: the brokers at the level of requests, time and chance. A
 * simulation has a cluster in memory.
 */
export interface Brokers {
  readonly clock: Clock
  /** A number in [0, 1). */
  readonly random: () => number
  /** @param clientId shown in the broker's logs and metrics */
  openProducer(connection: KafkaConnection, clientId: string): ProduceRequests
  openFetcher(connection: KafkaConnection, clientId: string): FetchRequests
}
