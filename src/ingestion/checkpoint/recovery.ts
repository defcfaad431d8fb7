import { randomUUID } from 'node:crypto'
import type { TopicNames } from '../../foundation/kafka/config.ts'
import { EXCHANGE_IDENTITY_KEY } from '../../foundation/kafka/exchange-identity-mark.ts'
import type { KafkaPort, RecordFetcher } from '../../foundation/kafka/kafka-port.ts'
import { keyOf, type OffsetRange } from '../../foundation/kafka/partition.ts'
import { readRange } from '../../foundation/kafka/read-range.ts'
import type { EventTopic, StreamType } from '../../foundation/market/event.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import { InstanceWatch } from './instance-watch.ts'
import { RecoveryFold } from './recovery-fold.ts'
import { type Tail, TailEpochs } from './tail-epochs.ts'
import { findTruncations } from './truncation.ts'

/**
 * Reads the state of the symbols from Kafka: their newest checkpoints, and the events and ledger
 * rows after them. The result tells as ranges which ids Kafka has, whether or not a ledger message
 * survived. A symbol without a checkpoint is new, unless the topics have messages of it.
 * @returns also the end of each partition when it was read
 */
export async function recover(
  kafka: Pick<KafkaPort, 'fetcher'>,
  names: TopicNames,
  kinds: readonly EventTopic[],
  symbols: readonly string[],
  log: Logger,
): Promise<{ readonly fold: RecoveryFold; readonly ends: readonly Tail[] }> {
  const topics = [...kinds, 'gaps', 'checkpoints'] as const
  const fetcher = kafka.fetcher(
    'tapeline-ingestion-recovery',
    topics.map((topic) => names[topic]),
  )
  try {
    const metadata = await fetcher.connect()
    const ranges = await fetcher.offsetRanges()
    const onUnreadable = (symbol: string, err: unknown) =>
      log.error(
        { err, symbol },
        `A checkpoint of ${symbol} is unreadable; rebuilding its state from the topics`,
      )
    const fold = await foldCheckpoints(
      fetcher,
      ranges,
      names.checkpoints,
      log,
      (truncations) => new RecoveryFold(symbols, metadata, onUnreadable, truncations),
    )
    fold.addDisbelievedRows()
    // The ledger first: its requests to reopen make holes, which the events then fill.
    for (const kind of ['gaps', ...kinds] as const) {
      const topic = names[kind]
      for (const range of ranges.filter((one) => one.topic === topic)) {
        const { partition, end } = range
        fold.memory.restoreOffset(topic, partition, end)
        const start = Math.max(range.start, fold.offset(topic, partition) ?? end)
        await readRange(fetcher, { topic, partition, start, end }, (message) =>
          kind === 'gaps' ? fold.gap(topic, message) : fold.event(kind, topic, message),
        )
      }
    }
    fold.addDisbelieved(names)
    return { fold, ends: ranges.map(({ topic, partition, end: offset }) => ({ topic, partition, offset })) }
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
  ranges: readonly OffsetRange[],
  checkpoints: string,
  log: Logger,
  begin: (truncations: ReadonlyMap<string, number>) => RecoveryFold,
): Promise<RecoveryFold> {
  const truncations = new Map<string, number>()
  for (;;) {
    const fold = begin(truncations)
    for (const range of ranges.filter(({ topic }) => topic === checkpoints)) {
      let isEmpty = true
      await readRange(fetcher, range, (message) => {
        if (message.key?.toString() === EXCHANGE_IDENTITY_KEY) return
        isEmpty = false
        fold.checkpoint(message)
      })
      if (isEmpty) fold.noCheckpoints(range)
    }
    const found = await findTruncations(fetcher, ranges, fold.claims())
    if (found.length === 0) return fold
    for (const truncation of found) {
      const { topic, partition, claimed, offset } = truncation
      const key = keyOf(truncation)
      truncations.set(key, Math.min(offset, truncations.get(key) ?? offset))
      log.error(
        { topic, partition, claimed, offset },
        `Partition ${partition} of ${topic} lost messages that Kafka had acknowledged: a checkpoint covers it up to ${claimed}, ` +
          `but the log has changed from ${offset} on. Rebuilding the state from there; trades are backfilled, quotes are lost`,
      )
    }
  }
}

/** The event topics that every ingestion uses. */
const ALWAYS = ['trades', 'bookTicker'] as const

/** The recovered state, and the clients that continue to read the topics. */
export interface RecoveredParts
  extends Pick<RecoveryFold, 'memory' | 'counters' | 'lostQuotes' | 'rows' | 'truncations'> {
  /** Names this process in its checkpoints. */
  readonly instance: string
  /** Whether the ledger's topic was deleted and recreated since the checkpoints. */
  readonly isLedgerRecreated: boolean
  readonly watch: Pick<InstanceWatch, 'check' | 'close' | 'position' | 'recreated' | 'truncations'>
  readonly tails: Pick<TailEpochs, 'learn' | 'leaderEpoch' | 'close' | 'recreated'>
}

/** Recovers the state and connects the clients that read on from there. @throws when the signal aborts */
export async function recoverParts(
  { kafka, clock }: { readonly kafka: Pick<KafkaPort, 'fetcher'>; readonly clock: Clock },
  names: TopicNames,
  eventTypes: readonly StreamType[],
  symbols: ReadonlySet<string>,
  log: Logger,
  stopping: AbortSignal,
): Promise<RecoveredParts> {
  const kinds = [...ALWAYS, ...(eventTypes.includes('depth') ? (['depth'] as const) : [])]
  const { fold, ends } = await recover(kafka, names, kinds, [...symbols], log)
  stopping.throwIfAborted()
  const { memory, counters, lostQuotes, rows, truncations, recoveredMessages } = fold
  const olderInstances = fold.instances
  const instance = randomUUID()
  const { checkpoints, gaps } = names
  const watch = new InstanceWatch(kafka, { checkpoints, gaps, instance, symbols, ends, olderInstances, log })
  const tails = new TailEpochs(kafka, [...kinds.map((kind) => names[kind]), gaps], clock, log)
  try {
    await watch.connect()
    await tails.learn(ends.filter(({ topic }) => topic !== checkpoints))
    stopping.throwIfAborted()
  } catch (error) {
    // The start tries again with new clients.
    await Promise.all([watch.close(), tails.close()])
    throw error
  }
  if (olderInstances.size > 0 || recoveredMessages > 0)
    log.info(
      { symbols: [...memory.symbols].length, recoveredMessages },
      'Recovered the state from the topics',
    )
  const isLedgerRecreated = fold.isRecreated(gaps)
  return { memory, counters, lostQuotes, rows, truncations, isLedgerRecreated, instance, watch, tails }
}
