import { crc32c, Reader } from '@platformatic/kafka'
import type {
  Brokers,
  FetchRequests,
  ProduceRequests,
} from '../../../src/foundation/kafka/broker-requests.ts'
import type { PartitionBatch } from '../../../src/foundation/kafka/codec/produce-request.ts'
import type { ClusterLayout } from '../../../src/foundation/kafka/topic-metadata.ts'

/** Planted defects of a sender or a fetcher; each disables the handling of one kind of fault. */
export const CLIENT_DEFECTS = [
  'the sender looks up leaders once',
  'the fetcher looks up leaders once',
  'the sender waits without limit',
  'the sender has one bootstrap broker',
  'a repeated batch has other sequence numbers',
  'a refused time is not renewed',
  'the producer id is kept',
  'acknowledged partitions are sent again',
] as const
export type ClientDefect = (typeof CLIENT_DEFECTS)[number]

/** Brokers with a planted defect between them and the real code. */
export function withDefect(brokers: Brokers, defect: string | undefined): Brokers {
  const producer = (change: (requests: ProduceRequests) => Partial<ProduceRequests>): Brokers => ({
    ...brokers,
    openProducer: (connection, clientId) => {
      const requests = brokers.openProducer(connection, clientId)
      return { ...requests, ...change(requests) }
    },
  })
  const batches = (change: (batch: PartitionBatch) => PartitionBatch): Brokers =>
    producer(({ produce }) => ({
      produce: (broker, replicasMs, sent) => produce(broker, replicasMs, sent.map(change)),
    }))
  switch (defect) {
    case 'the sender looks up leaders once': {
      const remembered = rememberLayouts()
      return producer((requests) => ({ metadata: remembered(requests) }))
    }
    case 'the fetcher looks up leaders once': {
      // Also for the connections that a fetcher opens after a failure.
      const remembered = new Map<string, ReturnType<typeof rememberLayouts>>()
      return {
        ...brokers,
        openFetcher: (connection, clientId) => {
          const requests = brokers.openFetcher(connection, clientId)
          const remember = remembered.get(clientId) ?? rememberLayouts()
          remembered.set(clientId, remember)
          return { ...requests, metadata: remember(requests) }
        },
      }
    }
    case 'the sender waits without limit':
      return {
        ...brokers,
        clock: {
          monotonicMs: () => brokers.clock.monotonicMs(),
          wallMicros: () => brokers.clock.wallMicros(),
          schedule: (ms, run) => (ms >= LIMIT_MS ? () => {} : brokers.clock.schedule(ms, run)),
        },
      }
    case 'the sender has one bootstrap broker':
      return {
        ...brokers,
        openProducer: (connection, clientId) =>
          brokers.openProducer(
            { ...connection, brokers: connection.brokers.toSorted().slice(0, 1) },
            clientId,
          ),
      }
    case 'a repeated batch has other sequence numbers':
      return batches((one) => ({ ...one, batch: withoutProducer(one.batch) }))
    case 'a refused time is not renewed': {
      const first = new Map<string, Buffer>()
      return batches((one) => {
        const key = `${one.topic}/${one.partition} ${one.batch.toString('hex', PRODUCER_AT, PRODUCER_END)}`
        const batch = first.get(key) ?? one.batch
        first.set(key, batch)
        return { ...one, batch }
      })
    }
    case 'the producer id is kept': {
      let id: ReturnType<ProduceRequests['initProducerId']> | null = null
      return producer((requests) => ({
        initProducerId: (broker) => {
          id ??= requests.initProducerId(broker).catch((error: unknown) => {
            id = null
            throw error
          })
          return id
        },
      }))
    }
    case 'acknowledged partitions are sent again':
      return producer((requests) => ({
        produce: async (broker, replicasMs, sent) => {
          const answer = await requests.produce(broker, replicasMs, sent)
          const results = answer.responses.flatMap((one) => one.partitionResponses)
          const refused = results.find((one) => one.errorCode !== 0)
          if (refused === undefined) return answer
          throw new Error(`error ${refused.errorCode}`)
        },
      }))
    default:
      return brokers
  }
}

/** The longest time of a request. */
const LIMIT_MS = 8000

/** The bytes from the producer's id to the first sequence number. */
const PRODUCER_AT = 43
const PRODUCER_END = 57

const CHECKSUM_AT = 17
const CHECKED_FROM = 21

function rememberLayouts(): (requests: ProduceRequests | FetchRequests) => FetchRequests['metadata'] {
  const known = new Map<string, Promise<ClusterLayout>>()
  return (requests) => (topics) => {
    const key = topics.toSorted().join()
    const layout = known.get(key) ?? requests.metadata(topics)
    known.set(key, layout)
    layout.catch(() => known.delete(key))
    return layout
  }
}

/** The bytes as written by a producer without idempotence. */
function withoutProducer(batch: Buffer): Buffer {
  const copy = Buffer.from(batch)
  copy.writeBigInt64BE(-1n, PRODUCER_AT)
  copy.writeUInt32BE(crc32c(Reader.from(copy.subarray(CHECKED_FROM)).buffer), CHECKSUM_AT)
  return copy
}
