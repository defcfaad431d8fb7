import type { FetchOptions, fetchV17, produceV11 } from '@platformatic/kafka'
import type { Clock } from '../runtime/clock.ts'
import type { PartitionBatch } from './codec/produce-request.ts'
import type { MessageBatch } from './codec/record-batch.ts'
import type { KafkaConnection } from './connection.ts'
import type { ClusterLayout } from './topic-metadata.ts'

/** The address of a broker. */
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

/** An answer to Fetch with parsed records. */
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
  /** Closes the connections. Running requests reject or never settle. */
  close(): Promise<void>
}

/**
 * The requests of a producer. Each is sent once, without a time limit; an answer has a result per
 * partition.
 */
export interface ProduceRequests extends MetadataRequests {
  initProducerId(broker: BrokerAddress): Promise<ProducerId>
  /**
   * @param replicasMs how long the broker may wait for its replicas
   * @param isGivenUp checked before the batches are sent: they may have been retried elsewhere
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

/**
 * The requests of a reader. An answer to Fetch has a result per partition; it rejects if the whole
 * request failed.
 */
export interface FetchRequests extends MetadataRequests {
  /**
   * Returns offsets of each topic by partition, from the leaders. @throws if a partition has none
   */
  listOffsets(topics: readonly string[], timestamp: bigint): Promise<ReadonlyMap<string, readonly bigint[]>>
  /** Asks one broker for the ends of partitions that it leads. @returns those that it names */
  endOffsets(
    node: number,
    partitions: ReadonlyArray<{ readonly topic: string; readonly partition: number }>,
  ): Promise<PartitionEnd[]>
  fetch(options: FetchOptions<Buffer, Buffer, Buffer, Buffer>): Promise<FetchAnswer>
}

/**
 * Everything below `RecordSender` and `PartitionFetcher`: requests to brokers, time and randomness.
 * A simulation has an in-memory cluster.
 */
export interface Brokers {
  readonly clock: Clock
  /** A number in [0, 1). */
  readonly random: () => number
  /** @param clientId shown in the broker's logs and metrics */
  openProducer(connection: KafkaConnection, clientId: string): ProduceRequests
  openFetcher(connection: KafkaConnection, clientId: string): FetchRequests
}
