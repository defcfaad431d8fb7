import type { KafkaConnection, TopicNames } from '../../foundation/kafka/config.ts'
import {
  EXCHANGE_IDENTITY_KEY,
  type Mark,
  markOf,
  parseMark,
  rejectOtherExchange,
  rejectOtherTimeUnit,
  rejectOtherTopics,
} from '../../foundation/kafka/exchange-identity-mark.ts'
import { sendGapRows } from '../../foundation/kafka/gap-sender.ts'
import { PartitionFetcher } from '../../foundation/kafka/partition-fetcher.ts'
import { latestValue, readEnds } from '../../foundation/kafka/read-range.ts'
import { RecordSender } from '../../foundation/kafka/record-sender.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { IdRow } from '../../foundation/market/gap-requests.ts'
import { countIds, type IdRange, normalise, subtract } from '../../foundation/market/id-ranges.ts'
import { type Clock, wallMs } from '../../foundation/runtime/clock.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { countText } from '../../foundation/telemetry/plural.ts'
import type { DailyFile } from './daily-file.ts'
import type { DailyRows } from './daily-rows.ts'
import { closingRows, type ImportedGap } from './gap-closing.ts'
import type { HistoryStore, TradeStream } from './history-store.ts'
import { type Imported, publishMissing, type ReadFile, readWhole } from './import-file.ts'
import { TradePublisher } from './trade-publisher.ts'
import { untilStored } from './until-stored.ts'

export interface ImportOptions {
  readonly kafka: KafkaConnection
  readonly topics: TopicNames
  /** Opens the store at its present moment. */
  readonly withStore: <Result>(work: (store: HistoryStore) => Promise<Result>) => Promise<Result>
  /** Runs work on Kafka, and words its errors for a person. */
  readonly onKafka: <Result>(work: () => Promise<Result>) => Promise<Result>
  readonly clock: Clock
  /** How often the service that stores the topics writes. */
  readonly flushIntervalMs: number
  /** Publishes nothing. */
  readonly isDry: boolean
  readonly signal: AbortSignal
}

/** What an import reports while it runs. */
export interface ImportEvents {
  /** Messages that the store does not have yet. */
  onWaiting(messages: number): void
  onProgress(file: DailyFile, step: 'reading' | 'publishing', rows: DailyRows): void
  /** @param imported null: the file was refused, for its defects */
  onFile(read: ReadFile, imported: Imported | null): void
  onClosed(gap: Gap): void
}

/** The ids that the files of a stream and epoch have. */
interface Covered {
  readonly stream: TradeStream
  readonly files: IdRange[]
  /** The ranges of each file: more than a call may have arguments. */
  readonly published: Array<readonly IdRange[]>
}

/**
 * Publishes the trades of daily files that are not stored, and closes the unrecoverable gaps that this
 * fills. Each run first waits until the store has everything that Kafka has, so a run after a kill
 * continues where the last one ended.
 *
 * @throws TapelineError `SOURCE` if the store belongs to another exchange than the topics; `KAFKA` or
 *   `DATABASE` if one of them fails; `INTERRUPTED`
 */
export async function importFiles(
  files: readonly DailyFile[],
  options: ImportOptions,
  events: ImportEvents,
): Promise<void> {
  const { kafka, topics, withStore, onKafka, isDry } = options
  const mark = await readMark(options)
  await withStore((store) => rejectOtherStore(store, mark))
  const wanted = [topics.trades, topics.gaps]
  const ends = await onKafka(() => readEnds(kafka, 'tapeline-history', wanted))
  const unstored = () => withStore((store) => store.unstored(ends))
  // What was published and is not stored yet must not be published again.
  await untilStored(unstored, wanted, options, events.onWaiting)
  const sender = new RecordSender(kafka, 'tapeline-history', 'lz4')
  const covered = new Map<string, Covered>()
  const sending: Pick<RecordSender, 'send'> = { send: (...args) => onKafka(() => sender.send(...args)) }
  try {
    const metadata = await onKafka(() => sender.topics([topics.trades]))
    const partitions = metadata.get(topics.trades)?.partitions ?? 1
    const to = { topic: topics.trades, partitions, wallMs: () => wallMs(options.clock) }
    for (const file of files) {
      const read = await readWhole(file, (rows) => {
        throwIfAborted(options, 0)
        events.onProgress(file, 'reading', rows)
      })
      const { ids } = read
      if (ids === null) {
        events.onFile(read, null)
        continue
      }
      const { symbol, type: eventType } = file
      const [epoch, imported] = await withStore(async (store) => {
        const epoch = await store.epochAt(symbol, eventType, ids.last.timeUs)
        const open = (await store.gapsOf({ symbol, eventType, epoch })).filter(isOpen).map(rangeOf)
        const publisher = isDry ? null : new TradePublisher(sending, to, file, mark.timeUnit, epoch)
        const imported = await publishMissing(read, store, epoch, open, publisher, (rows) => {
          throwIfAborted(options, publisher?.acknowledged ?? 0)
          events.onProgress(file, 'publishing', rows)
        })
        return [epoch, imported] as const
      })
      events.onFile(read, imported)
      const key = `${symbol} ${eventType} ${epoch}`
      const one = covered.get(key) ?? { stream: { symbol, eventType, epoch }, files: [], published: [] }
      covered.set(key, one)
      one.files.push({ from: ids.first.id, to: ids.last.id })
      one.published.push(imported.published)
    }
  } finally {
    await sender.close()
  }
  for (const one of covered.values()) await closeGaps(one, options, events)
}

/** Closes the unrecoverable gaps of a stream as far as their ids are stored or published now. */
async function closeGaps(
  { stream, files, published }: Covered,
  { kafka, topics, withStore, onKafka, clock, isDry, signal }: ImportOptions,
  { onClosed }: ImportEvents,
): Promise<void> {
  const rows = await withStore(async (store) => {
    const all = await store.gapsOf(stream)
    const touched = all.filter(
      (row) => isUnrecoverable(row) && countIds(subtract([rangeOf(row)], files)) < sizeOf(row),
    )
    const now = normalise(published.flat())
    const left = touched.flatMap((row) =>
      subtract([rangeOf(row)], now).map((range) => ({
        row,
        range: { ...range, fromMs: row.from_time, toMs: row.to_time },
      })),
    )
    const missing = await store.missingOf(
      stream,
      left.map(({ range }) => range),
    )
    const gaps = touched.map(
      (row): ImportedGap => ({
        row,
        missing: normalise(left.flatMap((one, i) => (one.row === row ? (missing[i] ?? []) : []))),
      }),
    )
    return closingRows(gaps, all, wallMs(clock))
  })
  if (!isDry) await onKafka(() => sendGapRows(kafka, topics.gaps, rows, signal))
  for (const row of rows) onClosed(row)
}

/** Reads the exchange and the unit of the topics. @throws TapelineError `SOURCE` if they have none */
async function readMark({ kafka, topics, onKafka }: ImportOptions): Promise<Mark> {
  const fetcher = new PartitionFetcher(kafka, 'tapeline-history-mark', [topics.checkpoints])
  const text = await onKafka(() => latestValue(fetcher, topics.checkpoints, EXCHANGE_IDENTITY_KEY))
  if (text === null)
    throw new TapelineError('SOURCE', `${topics.checkpoints} does not name the exchange of the topics`, {
      fix: 'Start ingestion once: it names the exchange and the unit of the times.',
    })
  const mark = parseMark(text, topics.checkpoints)
  rejectOtherTopics(topics.checkpoints, mark, markOf(mark, topics))
  return mark
}

async function rejectOtherStore(store: HistoryStore, { source, timeUnit }: Mark): Promise<void> {
  const stored = await store.identity()
  if (stored === null) return
  const fix = 'Use the database or the archive of these topics.'
  rejectOtherExchange('The stored rows', stored.source, source, fix)
  rejectOtherTimeUnit('The stored rows', stored.timeUnit, timeUnit, fix)
}

function throwIfAborted({ signal }: ImportOptions, published: number): void {
  if (!signal.aborted) return
  throw new TapelineError(
    'INTERRUPTED',
    `Interrupted; ${countText(published)} rows of this file were published`,
    {
      fix: 'Run the command again: it continues.',
      cause: signal.reason,
    },
  )
}

const isOpen = ({ status }: IdRow) => status === 'open'
const isUnrecoverable = ({ status }: IdRow) => status === 'unrecoverable'
const rangeOf = ({ from_id: from, to_id: to }: IdRow): IdRange => ({ from, to })
const sizeOf = ({ from_id, to_id }: IdRow) => to_id - from_id + 1
