import type {
  Brokers,
  ProduceAnswer,
  ProduceRequests,
  ProducerId,
} from '../../../src/foundation/kafka/broker-requests.ts'
import { RecordWriter } from '../../../src/foundation/kafka/codec/record-writer.ts'
import type { KafkaConnection } from '../../../src/foundation/kafka/config.ts'
import type { RecordProducer } from '../../../src/foundation/kafka/kafka-port.ts'
import type { OutgoingRecord } from '../../../src/foundation/kafka/record-sender.ts'
import type { ClusterLayout } from '../../../src/foundation/kafka/topic-metadata.ts'
import { sleep } from '../../../src/foundation/runtime/backoff.ts'

const RETRY_MS = 250

/** The records of a send whose partitions had the same leader when it began. */
interface Group {
  readonly batches: ReadonlyArray<{
    readonly topic: string
    readonly partition: number
    readonly batch: Buffer
    readonly records: readonly OutgoingRecord[]
  }>
}

/**
 * A producer like the client's (version 2.12): it assigns the records of a send to leaders once. It
 * retries a whole group, with the same bytes, at the leader of its first partition, without a
 * limit.
 */
export function clientProducer(brokers: Brokers, connection: KafkaConnection): RecordProducer {
  const requests = brokers.openProducer(connection, 'client')
  const closing = new AbortController()
  const writer = new RecordWriter()
  const sequences = new Map<string, number>()
  let producer: ProducerId | null = null

  const layoutOf = (records: readonly OutgoingRecord[]) =>
    untilDone(brokers, closing.signal, () =>
      requests.metadata([...new Set(records.map(({ topic }) => topic))]),
    )

  const write = (records: readonly OutgoingRecord[], id: ProducerId) => {
    const { topic = '', partition = 0 } = records[0] ?? {}
    const place = `${topic}/${partition}`
    const sequence = sequences.get(place) ?? 0
    sequences.set(place, sequence + records.length)
    return { topic, partition, records, batch: writer.batch(records, sequence, id) }
  }

  return {
    topics: async (names) => (await requests.metadata(names)).topics,
    send: async (records, options) => {
      const layout = await layoutOf(records)
      producer ??= await untilDone(brokers, closing.signal, () =>
        requests.initProducerId(brokerOf(layout, [...layout.brokers.keys()][0] ?? -1)),
      )
      const id = producer
      const byPlace = Map.groupBy(records, ({ topic, partition }) => `${topic}/${partition}`)
      const byLeader = Map.groupBy([...byPlace.values()], ([first]) => leaderOf(layout, first))
      const groups = [...byLeader.values()].map((of): Group => ({ batches: of.map((one) => write(one, id)) }))
      await Promise.all(
        groups.map(async ({ batches }) => {
          const answer = await untilDone(brokers, closing.signal, () =>
            produceOnce(requests, layoutOf, batches),
          )
          for (const { name, partitionResponses } of answer.responses) {
            for (const { index, baseOffset } of partitionResponses) {
              const sent = batches.find(({ topic, partition }) => topic === name && partition === index)
              const acknowledged = records.filter(
                ({ topic, partition }) => topic === name && partition === index,
              )
              if (sent !== undefined)
                options?.onAcknowledged?.(
                  { topic: name, partition: index, offset: Number(baseOffset) },
                  acknowledged,
                )
            }
          }
        }),
      )
    },
    close: async () => {
      closing.abort(new Error('The producer was closed'))
      await requests.close()
    },
  }
}

async function produceOnce(
  requests: ProduceRequests,
  layoutOf: (records: readonly OutgoingRecord[]) => Promise<ClusterLayout>,
  batches: Group['batches'],
): Promise<ProduceAnswer> {
  const [first] = batches
  const layout = await layoutOf(first?.records ?? [])
  const answer = await requests.produce(brokerOf(layout, leaderOf(layout, first)), 5000, batches)
  const refused = answer.responses.flatMap((one) => one.partitionResponses).find((one) => one.errorCode !== 0)
  if (refused !== undefined) throw new Error(`error ${refused.errorCode}`)
  return answer
}

function leaderOf(
  layout: ClusterLayout,
  of: { readonly topic: string; readonly partition: number } | undefined,
): number {
  return layout.topics.get(of?.topic ?? '')?.leaders[of?.partition ?? 0] ?? -1
}

function brokerOf(layout: ClusterLayout, node: number) {
  const broker = layout.brokers.get(node)
  if (broker === undefined) throw new Error('No leader')
  return broker
}

async function untilDone<Result>(
  { clock }: Brokers,
  closing: AbortSignal,
  run: () => Promise<Result>,
): Promise<Result> {
  for (;;) {
    closing.throwIfAborted()
    try {
      return await run()
    } catch {
      await sleep(RETRY_MS, closing, clock)
    }
  }
}
