import type { TopicNames } from '../../foundation/kafka/config.ts'
import { EXCHANGE_IDENTITY_KEY } from '../../foundation/kafka/exchange-identity-mark.ts'
import type { KafkaPort, RecordFetcher } from '../../foundation/kafka/kafka-port.ts'
import { type Range, readRange } from '../../foundation/kafka/read-range.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'
import { RecoveryFold, type RowsByWriter } from './recovery-fold.ts'
import { findTruncations } from './truncation.ts'

/** What the topics know of the symbols of this instance. */
export interface Recovered {
  readonly memory: AcknowledgedState
  /** The end of each partition when it was read, by `topic:partition`. */
  readonly ends: ReadonlyMap<string, number>
  /** The processes that wrote its checkpoints. */
  readonly instances: ReadonlySet<string>
  /** The highest counter of each symbol's checkpoints. */
  readonly counters: ReadonlyMap<string, number>
  /** The windows of quotes that Kafka acknowledged and lost, by symbol. */
  readonly lostQuotes: ReadonlyMap<string, { readonly fromMs: number; readonly toMs: number }>
  /** Partitions that no longer had what checkpoints were taken of. */
  readonly truncations: number
  /** The ledger's topic was deleted and made again since the checkpoints. */
  readonly isLedgerRecreated: boolean
  /** Messages that were replayed behind the checkpoints. */
  readonly recoveredMessages: number
  /** Rows of the ledger among them. */
  readonly rows: RowsByWriter
}

const LIMITS = { maxWaitMs: 200, minBytes: 1, maxBytes: 8 << 20 }

/**
 * Reads from Kafka what it knows of the symbols: their newest checkpoints, and on top of them the events and the rows
 * of the ledger that stand behind. After this, which ids it has is known as ranges, whether or not a ledger message
 * survived. A symbol without a checkpoint is new, unless the topics have something of it.
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
    const ends = new Map(ranges.map(({ topic, partition, end }) => [`${topic}:${partition}`, end]))
    const fold = await foldCheckpoints(fetcher, ranges, names.checkpoints, log, (truncations) => {
      const onUnreadable = (symbol: string, err: unknown) =>
        log.error(
          { err, symbol },
          `A checkpoint of ${symbol} cannot be read; its state is rebuilt from the topics`,
        )
      return new RecoveryFold(symbols, metadata, onUnreadable, truncations)
    })
    fold.addDisbelievedRows()
    // The ledger first: the events fill the holes that its requests to reopen have made.
    const replayed = [names.gaps, names.trades, names.bookTicker]
    for (const { topic, partition, start, end } of replayed.flatMap((name) =>
      ranges.filter(({ topic }) => topic === name),
    )) {
      fold.memory.restoreOffset(topic, partition, end)
      const from = Math.max(start, fold.offset(topic, partition) ?? end)
      const onMessage = topic === names.gaps ? fold.gap : fold.event
      await readRange(fetcher, { topic, partition, start: from, end }, LIMITS, (message) =>
        onMessage(topic, message),
      )
    }
    fold.addDisbelieved(names.trades)
    const { memory, instances, counters, recoveredMessages, lostQuotes, rows } = fold
    const isLedgerRecreated = fold.isRecreated(names.gaps)
    return {
      memory,
      ends,
      instances,
      counters,
      recoveredMessages,
      lostQuotes,
      rows,
      isLedgerRecreated,
      truncations: fold.truncated,
    }
  } finally {
    await fetcher.close()
  }
}

/**
 * Takes the newest checkpoints, or older ones, until the topics have all that they were taken of. Each time around, what
 * they may have been taken of is less.
 */
async function foldCheckpoints(
  fetcher: RecordFetcher,
  ranges: readonly Range[],
  checkpoints: string,
  log: Logger,
  begin: (truncations: ReadonlyMap<string, number>) => RecoveryFold,
): Promise<RecoveryFold> {
  const truncations = new Map<string, number>()
  for (;;) {
    const fold = begin(truncations)
    const filled = new Set<number>()
    for (const range of ranges.filter(({ topic }) => topic === checkpoints)) {
      await readRange(fetcher, range, LIMITS, (message) => {
        if (message.key?.toString() === EXCHANGE_IDENTITY_KEY) return
        filled.add(range.partition)
        fold.checkpoint(message)
      })
    }
    for (const { topic, partition } of ranges)
      if (topic === checkpoints && !filled.has(partition)) fold.noCheckpoints(topic, partition)
    const found = await findTruncations(fetcher, ranges, fold.claims())
    if (found.length === 0) return fold
    for (const { topic, partition, claimed, offset } of found) {
      const key = `${topic}:${partition}`
      truncations.set(key, Math.min(offset, truncations.get(key) ?? offset))
      log.error(
        { topic, partition, claimed, offset },
        `Partition ${partition} of ${topic} lost messages that Kafka had acknowledged: a checkpoint was taken at ${claimed}, ` +
          `the log is the same up to ${offset}. The state is rebuilt from there; trades are backfilled, quotes are lost`,
      )
    }
  }
}
