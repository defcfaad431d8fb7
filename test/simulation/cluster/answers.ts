import type {
  FetchRequests,
  PartitionOffset,
  ProduceAnswer,
} from '../../../src/foundation/kafka/broker-requests.ts'
import type { FetchAnswer, PartitionAnswer } from '../../../src/foundation/kafka/codec/fetch-api.ts'
import type { PartitionBatch } from '../../../src/foundation/kafka/codec/produce-request.ts'
import type { TopicPartition } from '../../../src/foundation/kafka/partition.ts'
import type { ClusterLayout } from '../../../src/foundation/kafka/topic-metadata.ts'
import { PRODUCED } from '../../support/record-batches.ts'
import type { VirtualClock } from '../../support/virtual-clock.ts'
import type { Broker } from './broker.ts'
import { type Cluster, PARTITIONS } from './cluster.ts'
import { ERROR } from './partition.ts'
import type { StoredBatch } from './replica-log.ts'

const MAX_AHEAD_MS = 3_600_000
const FETCH_MESSAGES = 2000

/** Position of the newest time in the header of a batch. */
const MAX_TIMESTAMP_AT = 35

/** After this time a client may no longer wait for the answer. */
const PROMPT_MS = 7000

type FetchWanted = Parameters<FetchRequests['fetch']>[1][number]['partitions'][number]

interface ProduceRequest {
  readonly replicasMs: number
  readonly batches: readonly PartitionBatch[]
  readonly incarnation: number
  /** A broker that hung may store it long after. */
  readonly sentAtMs: number
}

/** Serves Produce with acks=all: answers once each partition is refused, replicated or timed out. */
export function produceTo(
  { cluster, clock }: { readonly cluster: Cluster; readonly clock: VirtualClock },
  broker: Broker,
  request: ProduceRequest,
  answer: (value: ProduceAnswer, onDelivered: () => void) => void,
): void {
  const { replicasMs, batches, sentAtMs } = request
  const responses: ProduceAnswer['responses'] = []
  const written: StoredBatch[] = []
  for (const one of batches) {
    const { topic, partition: index } = one
    const settled = (errorCode: number, offset = -1) => {
      responses.push({ name: topic, partitionResponses: [resultOf(index, errorCode, offset)] })
      if (responses.length < batches.length) return
      answer({ responses, throttleTimeMs: 0 }, () => {
        if (cluster.nowMs - sentAtMs >= PROMPT_MS) return
        for (const batch of written) batch.acknowledgedAtMs = Math.min(batch.acknowledgedAtMs, cluster.nowMs)
      })
    }
    const outcome = appendTo(cluster, broker, one, request)
    if (typeof outcome === 'number') {
      settled(outcome)
      continue
    }
    const partition = cluster.partition(topic, index)
    if (partition === undefined) continue
    const settle = (errorCode: number) => {
      cancel()
      if (errorCode === ERROR.NONE) written.push(outcome)
      settled(errorCode, errorCode === ERROR.NONE ? outcome.baseOffset : -1)
    }
    let cancel = () => {}
    if (cluster.acknowledgesBeforeReplicas) settle(ERROR.NONE)
    else {
      const giveUp = partition.whenCommitted(broker.node, outcome, settle)
      if (!outcome.isCommitted) {
        cancel = clock.schedule(replicasMs, () => {
          giveUp()
          settled(ERROR.REQUEST_TIMED_OUT)
        })
      }
    }
    cluster.replicateSoon(partition)
  }
}

function appendTo(
  cluster: Cluster,
  broker: Broker,
  { topic, partition: index, batch }: PartitionBatch,
  { incarnation, sentAtMs }: ProduceRequest,
): StoredBatch | number {
  const partition = cluster.partition(topic, index)
  if (partition === undefined) return ERROR.UNKNOWN_TOPIC_OR_PARTITION
  const refusal = cluster.refusalOf(partition.name)
  if (refusal !== null) return refusal
  const believed = broker.view.get(partition.name)
  if (believed?.leader !== broker.node) return ERROR.NOT_LEADER_OR_FOLLOWER
  if (partition.inSync.size < partition.minInSync) return ERROR.NOT_ENOUGH_REPLICAS
  const nowMs = cluster.wallMs + broker.clockOffsetMs
  if (Number(batch.readBigInt64BE(MAX_TIMESTAMP_AT)) > nowMs + MAX_AHEAD_MS) return ERROR.INVALID_TIMESTAMP
  const outcome = partition.append(broker.node, believed.epoch, batch, incarnation)
  if (typeof outcome !== 'number' && outcome.acknowledgedAtMs < sentAtMs) {
    cluster.complaints.push(`K2: ${partition.name}: sent again although it was acknowledged`)
  }
  return outcome
}

function resultOf(index: number, errorCode: number, offset: number) {
  return { ...PRODUCED, index, errorCode, baseOffset: BigInt(offset) }
}

/** A broker's view of the topics. */
export function layoutFrom(cluster: Cluster, { view }: Broker, topics: readonly string[]): ClusterLayout {
  const layouts = topics.map((topic) => {
    const id = cluster.topicIds.get(topic)
    if (id === undefined) throw new Error(`Unknown topic ${topic}`)
    const leaders = Array.from(
      { length: PARTITIONS },
      (_, index) => view.get(`${topic}/${index}`)?.leader ?? -1,
    )
    const leaderEpochs = leaders.map((_, index) => view.get(`${topic}/${index}`)?.epoch ?? -1)
    return [topic, { id, partitions: PARTITIONS, leaders, leaderEpochs }] as const
  })
  const brokers = [...cluster.brokers.values()].map(({ node, host, port }) => [node, { host, port }] as const)
  return { topics: new Map(layouts), brokers: new Map(brokers) }
}

/**
 * Serves ListOffsets: the oldest offset for −2, the next one for −1. A new leader does not know the next one until its
 * high watermark reaches what it had when it was elected (KIP-207).
 */
export function offsetsFrom(
  cluster: Cluster,
  { node, view }: Broker,
  partitions: readonly TopicPartition[],
  timestamp: bigint,
): PartitionOffset[] {
  return partitions.flatMap(({ topic, partition }) => {
    const log = cluster.partition(topic, partition)?.logs.get(node)
    if (log === undefined || view.get(`${topic}/${partition}`)?.leader !== node) return []
    if (timestamp === -2n) return [{ topic, partition, offset: 0 }]
    return log.highWatermark < log.electedAt ? [] : [{ topic, partition, offset: log.highWatermark }]
  })
}

/** Serves Fetch as brokers do since Kafka 2.4: a follower answers too, up to its high watermark. */
export function fetchFrom(
  cluster: Cluster,
  broker: Broker,
  topics: Parameters<FetchRequests['fetch']>[1],
): FetchAnswer {
  const responses = topics.map(({ topicId, partitions }) => ({
    topicId,
    partitions: partitions.map((wanted) => fetchPart(cluster, broker, topicId, wanted)),
  }))
  return { errorCode: 0, responses }
}

function fetchPart(
  cluster: Cluster,
  { node, view }: Broker,
  topicId: string,
  { partition: index, currentLeaderEpoch, fetchOffset, lastFetchedEpoch }: FetchWanted,
): PartitionAnswer {
  const topic = [...cluster.topicIds].find(([, id]) => id === topicId)?.[0] ?? ''
  const partition = cluster.partition(topic, index)
  const log = partition?.logs.get(node)
  const { epoch = 0 } = view.get(`${topic}/${index}`) ?? {}
  const offset = Number(fetchOffset)
  const refused = (errorCode: number): PartitionAnswer => {
    return { partitionIndex: index, errorCode, highWatermark: -1n, logStartOffset: -1n, records: [] }
  }
  if (partition === undefined) return refused(ERROR.UNKNOWN_TOPIC_ID)
  if (log === undefined) return refused(ERROR.NOT_LEADER_OR_FOLLOWER)
  if (currentLeaderEpoch >= 0 && currentLeaderEpoch < epoch) return refused(ERROR.FENCED_LEADER_EPOCH)
  if (currentLeaderEpoch > epoch) return refused(ERROR.UNKNOWN_LEADER_EPOCH)
  const served = {
    ...{ partitionIndex: index, errorCode: ERROR.NONE, logStartOffset: 0n },
    highWatermark: BigInt(log.highWatermark),
  }
  const common = lastFetchedEpoch < 0 ? null : log.endOf(lastFetchedEpoch)
  if (common !== null && common.offset < offset) {
    const divergingEpoch = { epoch: common.leaderEpoch, endOffset: BigInt(common.offset) }
    return { ...served, divergingEpoch, records: [] }
  }
  if (offset < 0 || offset > log.end) return refused(ERROR.OFFSET_OUT_OF_RANGE)
  return { ...served, records: log.read(offset, FETCH_MESSAGES) }
}
