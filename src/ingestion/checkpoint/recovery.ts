import type { FetchedMessage } from '../../foundation/kafka/codec/fetched-message.ts'
import type { TopicNames } from '../../foundation/kafka/config.ts'
import type { KafkaPort, RecordFetcher } from '../../foundation/kafka/kafka-port.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'
import { RecoveryFold } from './recovery-fold.ts'

/** What the topics know of the symbols of this instance. */
export interface Recovered {
  readonly memory: AcknowledgedState
  /** The end of each partition when it was read, by `topic:partition`. */
  readonly ends: ReadonlyMap<string, number>
  /** The processes that wrote its checkpoints. */
  readonly instances: ReadonlySet<string>
  /** The highest counter of each symbol's checkpoints. */
  readonly counters: ReadonlyMap<string, number>
  /** Messages that were replayed behind the checkpoints. */
  readonly recoveredMessages: number
}

const LIMITS = { maxWaitMs: 200, minBytes: 1, maxBytes: 8 << 20 }

/**
 * Reads from Kafka what it knows of the symbols: their newest checkpoints, and on top of them the events and the rows
 * of the ledger that stand behind. After this, which ids it has is known as ranges, whether or not a ledger message
 * survived. A symbol without a checkpoint is new.
 */
export async function recover(
  kafka: Pick<KafkaPort, 'fetcher'>,
  names: TopicNames,
  symbols: readonly string[],
  log: Logger,
): Promise<Recovered> {
  const topics = [names.trades, names.bookTicker, names.gaps, names.checkpoints]
  const fetcher = kafka.fetcher('tapeline-ingestion-recovery', topics)
  try {
    const metadata = await fetcher.connect()
    const ranges = await fetcher.offsetRanges()
    const fold = new RecoveryFold(
      symbols,
      (topic) => metadata.get(topic)?.partitions ?? 1,
      (symbol, err) =>
        log.error(
          { err, symbol },
          `A checkpoint of ${symbol} cannot be read; its state is rebuilt from the topics`,
        ),
    )
    const ends = new Map(ranges.map(({ topic, partition, end }) => [`${topic}:${partition}`, end]))
    for (const { topic, partition, start, end } of ranges.filter(
      ({ topic }) => topic === names.checkpoints,
    )) {
      await readPartition(fetcher, { topic, partition, from: start, end }, (message) =>
        fold.checkpoint(message),
      )
    }
    // The ledger first: the events fill the holes that its requests to reopen have made.
    const replayed = [names.gaps, names.trades, names.bookTicker]
    for (const { topic, partition, start, end } of replayed.flatMap((name) =>
      ranges.filter(({ topic }) => topic === name),
    )) {
      fold.memory.restoreOffset(topic, partition, end)
      const from = Math.max(start, fold.offset(topic, partition) ?? end)
      const onMessage = topic === names.gaps ? fold.gap : fold.event
      await readPartition(fetcher, { topic, partition, from, end }, (message) => onMessage(topic, message))
    }
    const { memory, instances, counters, recoveredMessages } = fold
    return { memory, ends, instances, counters, recoveredMessages }
  } finally {
    await fetcher.close()
  }
}

async function readPartition(
  fetcher: RecordFetcher,
  { topic, partition, from, end }: { topic: string; partition: number; from: number; end: number },
  onMessage: (message: FetchedMessage) => void,
): Promise<void> {
  for (let offset = from; offset < end; ) {
    const node = fetcher.leaderOf(topic, partition)
    if (node === null) throw new Error(`Partition ${partition} of ${topic} has no leader`)
    const [fetched] = await fetcher.fetch(node, [{ topic, partition, offset }], LIMITS)
    if (fetched?.error) throw new Error(`Partition ${partition} of ${topic}: ${fetched.error}`)
    for (const message of fetched?.messages ?? [])
      if (message.offset >= offset && message.offset < end) onMessage(message)
    offset = fetched?.nextOffset ?? offset
  }
}
