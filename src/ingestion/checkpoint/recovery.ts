import { randomUUID } from 'node:crypto'
import type { TopicNames } from '../../foundation/kafka/config.ts'
import { EXCHANGE_IDENTITY_KEY } from '../../foundation/kafka/exchange-identity-mark.ts'
import type { KafkaPort, RecordFetcher } from '../../foundation/kafka/kafka-port.ts'
import { keyOf } from '../../foundation/kafka/partition.ts'
import { type Range, readRange } from '../../foundation/kafka/read-range.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'
import { InstanceWatch } from './instance-watch.ts'
import { RecoveryFold, type RowsByWriter } from './recovery-fold.ts'
import { TailEpochs } from './tail-epochs.ts'
import { findTruncations } from './truncation.ts'

/** The recovered state of this instance's symbols. */
export interface Recovered {
  readonly memory: AcknowledgedState
  /** End offset of each partition when it was read, by `topic:partition`. */
  readonly ends: ReadonlyMap<string, number>
  /** The processes that wrote its checkpoints. */
  readonly instances: ReadonlySet<string>
  /** The highest counter of each symbol's checkpoints. */
  readonly counters: ReadonlyMap<string, number>
  /** Windows of quotes that Kafka acknowledged and then lost, by symbol. */
  readonly lostQuotes: ReadonlyMap<string, { readonly fromMs: number; readonly toMs: number }>
  /** Partitions that had lost messages covered by checkpoints. */
  readonly truncations: number
  /** Whether the ledger's topic was deleted and recreated since the checkpoints. */
  readonly isLedgerRecreated: boolean
  /** Messages replayed after the checkpoints. */
  readonly recoveredMessages: number
  /** The ledger rows among them. */
  readonly rows: RowsByWriter
}

const LIMITS = { maxWaitMs: 200, minBytes: 1, maxBytes: 8 << 20 }

/**
 * Reads the state of the symbols from Kafka: their newest checkpoints, and the events and ledger
 * rows after them. The result tells as ranges which ids Kafka has, whether or not a ledger message
 * survived. A symbol without a checkpoint is new, unless the topics have messages of it.
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
    const ends = new Map(ranges.map(({ topic, partition, end }) => [keyOf({ topic, partition }), end]))
    const fold = await foldCheckpoints(fetcher, ranges, names.checkpoints, log, (truncations) => {
      const onUnreadable = (symbol: string, err: unknown) =>
        log.error(
          { err, symbol },
          `A checkpoint of ${symbol} is unreadable; rebuilding its state from the topics`,
        )
      return new RecoveryFold(symbols, metadata, onUnreadable, truncations)
    })
    fold.addDisbelievedRows()
    // The ledger first: its requests to reopen make holes, which the events then fill.
    const replayed = [names.gaps, names.trades, names.bookTicker]
    for (const { topic, partition, start, end } of replayed.flatMap((name) =>
      ranges.filter(({ topic }) => topic === name),
    )) {
      fold.memory.restoreOffset(topic, partition, end)
      const from = Math.max(start, fold.offset(topic, partition) ?? end)
      const kind = topic === names.trades ? 'trades' : 'bookTicker'
      await readRange(fetcher, { topic, partition, start: from, end }, LIMITS, (message) =>
        topic === names.gaps ? fold.gap(topic, message) : fold.event(kind, topic, message),
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
 * Takes the newest checkpoints, falling back to older ones until the topics have everything that
 * they cover. Each round lowers the offsets that a checkpoint may cover.
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
      const key = keyOf({ topic, partition })
      truncations.set(key, Math.min(offset, truncations.get(key) ?? offset))
      log.error(
        { topic, partition, claimed, offset },
        `Partition ${partition} of ${topic} lost messages that Kafka had acknowledged: a checkpoint covers it up to ${claimed}, ` +
          `but the log has changed from ${offset} on. Rebuilding the state from there; trades are backfilled, quotes are lost`,
      )
    }
  }
}

/** What recovery has found, and the clients that continue to read the topics. */
export interface RecoveredParts
  extends Pick<
    Recovered,
    'memory' | 'counters' | 'lostQuotes' | 'rows' | 'isLedgerRecreated' | 'truncations'
  > {
  /** Names this process in its checkpoints. */
  readonly instance: string
  readonly watch: Pick<InstanceWatch, 'check' | 'close' | 'position' | 'recreated' | 'truncations'>
  readonly tails: Pick<TailEpochs, 'learn' | 'leaderEpoch' | 'close' | 'recreated'>
}

/**
 * Recovers the state and connects the clients that continue to read the topics from there.
 *
 * @param symbols grows while ingestion runs
 * @throws the signal's reason if it aborts
 */
export async function recoverParts(
  { kafka, clock }: { readonly kafka: Pick<KafkaPort, 'fetcher'>; readonly clock: Clock },
  names: TopicNames,
  symbols: ReadonlySet<string>,
  log: Logger,
  stopping: AbortSignal,
): Promise<RecoveredParts> {
  const recovered = await recover(kafka, names, [...symbols], log)
  stopping.throwIfAborted()
  const { ends, memory, recoveredMessages, instances: olderInstances } = recovered
  const instance = randomUUID()
  const { checkpoints, gaps, trades, bookTicker } = names
  const watch = new InstanceWatch(kafka, { checkpoints, gaps, instance, symbols, ends, olderInstances, log })
  const tails = new TailEpochs(kafka, [trades, bookTicker, gaps], clock, log)
  await watch.connect()
  await tails.learnEnds(ends)
  if (stopping.aborted) {
    await Promise.all([watch.close(), tails.close()])
    stopping.throwIfAborted()
  }
  if (olderInstances.size > 0 || recoveredMessages > 0)
    log.info(
      { symbols: [...memory.symbols].length, recoveredMessages },
      'Recovered the state from the topics',
    )
  return { ...recovered, instance, watch, tails }
}
