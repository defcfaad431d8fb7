import type { KafkaAccess, RecordFetcher } from '../kafka/access.ts'
import type { TopicNames } from '../kafka/config.ts'
import { HEADER, headerText } from '../kafka/headers.ts'
import type { FetchedRecord } from '../kafka/partition-fetcher.ts'
import { partitionOf } from '../kafka/partition-map.ts'
import { SOURCE_KEY } from '../kafka/source-mark.ts'
import { type EventType, streamName } from '../market/event.ts'
import { isFields, readAggTrade, readBookTicker, readTrade } from '../market/payload.ts'
import { type Checkpoint, parseCheckpoint } from './checkpoint.ts'
import type { StreamMemory } from './continuity.ts'
import type { IdGap } from './gap-ledger.ts'
import { Sequence } from './sequence.ts'

/** What the topics know of the symbols of this instance. */
export interface Recovered {
  /** By stream name; streams never seen are not in it. */
  readonly streams: ReadonlyMap<
    string,
    { readonly symbol: string; readonly type: EventType; readonly memory: StreamMemory }
  >
  readonly openGaps: readonly IdGap[]
  /** The next offset of every partition of the event topics, to which all this holds. */
  readonly offsets: ReadonlyArray<{
    readonly topic: string
    readonly partition: number
    readonly offset: number
  }>
  /** The end of each partition of the checkpoints topic when it was read. */
  readonly checkpointEnds: ReadonlyMap<number, number>
  /** Messages that were replayed behind the checkpoints. */
  readonly replayed: number
}

const LIMITS = { maxWaitMs: 200, minBytes: 1, maxBytes: 8 << 20 }

interface SymbolReplay {
  readonly checkpoint: Checkpoint
  readonly sequences: { readonly trade: Sequence<never>; readonly aggTrade: Sequence<never> }
  quote: { last: number; receiptMs: number } | null
}

/**
 * Puts together what is known of the symbols: their checkpoints, newest last, and on top of them the messages that
 * stand behind in the event topics. A symbol without a checkpoint is new.
 */
export class Replay {
  readonly #wanted: ReadonlySet<string>
  readonly #states = new Map<string, SymbolReplay>()
  /** Messages taken from the event topics. */
  replayed = 0

  constructor(symbols: readonly string[]) {
    this.#wanted = new Set(symbols)
  }

  checkpoint(key: Buffer | null, value: Buffer | null): void {
    const symbol = key?.toString() ?? SOURCE_KEY
    if (!this.#wanted.has(symbol) || value === null) return
    this.#states.set(symbol, replayOf(parseCheckpoint(value.toString())))
  }

  /** Where the event topics are to be read from, by symbol. */
  offsets(topic: string): Array<{ readonly symbol: string; readonly offset: number }> {
    return [...this.#states].map(([symbol, { checkpoint }]) => ({
      symbol,
      offset: checkpoint.offsets[topic] ?? 0,
    }))
  }

  event(topic: string, offset: number, { key, value, headers }: FetchedRecord): void {
    const state = this.#states.get(key?.toString() ?? '')
    if (state === undefined || offset < (state.checkpoint.offsets[topic] ?? 0)) return
    this.replayed++
    replay(state, value, Number(headerText(headers, HEADER.epoch) ?? 0))
  }

  memory(): Pick<Recovered, 'streams' | 'openGaps' | 'replayed'> {
    return {
      streams: new Map([...this.#states].flatMap(([symbol, state]) => memories(symbol, state))),
      openGaps: [...this.#states.values()].flatMap(({ checkpoint }) => checkpoint.open_gaps.flatMap(asIdGap)),
      replayed: this.replayed,
    }
  }
}

/**
 * Reads from Kafka what it knows of the symbols: after this, which ids it has is known as ranges, whether or not a
 * ledger message survived.
 */
export async function recover(
  kafka: Pick<KafkaAccess, 'fetcher'>,
  names: TopicNames,
  symbols: readonly string[],
): Promise<Recovered> {
  const topics = [names.trades, names.bookTicker, names.checkpoints]
  const fetcher = kafka.fetcher('tapeline-ingestion-recovery', topics)
  try {
    const metadata = await fetcher.connect()
    const ranges = await fetcher.offsetRanges()
    const replay = new Replay(symbols)
    const checkpointEnds = new Map<number, number>()
    for (const { partition, start, end } of ranges.filter(({ topic }) => topic === names.checkpoints)) {
      checkpointEnds.set(partition, end)
      await readPartition(fetcher, names.checkpoints, partition, start, end, ({ key, value }) => {
        replay.checkpoint(key, value)
      })
    }
    for (const topic of [names.trades, names.bookTicker]) {
      const count = metadata.get(topic)?.partitions ?? 1
      for (const { partition, start, end } of ranges.filter((range) => range.topic === topic)) {
        const here = replay.offsets(topic).filter(({ symbol }) => partitionOf(symbol, count) === partition)
        const from = Math.max(start, Math.min(end, ...here.map(({ offset }) => offset)))
        await readPartition(fetcher, topic, partition, from, end, (record, offset) => {
          replay.event(topic, offset, record)
        })
      }
    }
    const events = ranges.filter(({ topic }) => topic !== names.checkpoints)
    return {
      ...replay.memory(),
      offsets: events.map(({ topic, partition, end }) => ({ topic, partition, offset: end })),
      checkpointEnds,
    }
  } finally {
    await fetcher.close()
  }
}

async function readPartition(
  fetcher: RecordFetcher,
  topic: string,
  partition: number,
  from: number,
  end: number,
  onRecord: (record: FetchedRecord, offset: number) => void,
): Promise<void> {
  for (let offset = from; offset < end; ) {
    const node = fetcher.leaderOf(topic, partition)
    if (node === null) throw new Error(`Partition ${partition} of ${topic} has no leader`)
    const [fetched] = await fetcher.fetch(node, [{ topic, partition, offset }], LIMITS)
    if (fetched?.error) throw new Error(`Partition ${partition} of ${topic}: ${fetched.error}`)
    for (const { offset: at, record } of fetched?.records ?? [])
      if (at >= offset && at < end) onRecord(record, at)
    offset = fetched?.nextOffset ?? offset
  }
}

function replayOf(checkpoint: Checkpoint): SymbolReplay {
  const sequence = (type: 'trade' | 'aggTrade') => {
    const memory = checkpoint[type]
    return new Sequence<never>(memory === null ? undefined : { ...memory, lastTimeMs: memory.last_time })
  }
  const { bookTicker } = checkpoint
  return {
    checkpoint,
    sequences: { trade: sequence('trade'), aggTrade: sequence('aggTrade') },
    quote:
      bookTicker === null ? null : { last: bookTicker.last_update_id, receiptMs: bookTicker.last_receipt },
  }
}

function replay(state: SymbolReplay, value: Buffer | null, epoch: number): void {
  const data = parse(value)
  if (!isFields(data)) return
  if (data['e'] === undefined) {
    const quote = readBookTicker(data)
    const receiptMs = Number(data['ingestion_timestamp'])
    if (typeof quote !== 'string') state.quote = { last: quote.u, receiptMs }
    return
  }
  const trade = data['e'] === 'trade' ? readTrade(data) : readAggTrade(data)
  if (typeof trade === 'string') return
  const [sequence, id] = 't' in trade ? [state.sequences.trade, trade.t] : [state.sequences.aggTrade, trade.a]
  sequence.record(epoch, id, trade.T)
}

function memories(symbol: string, { sequences, quote }: SymbolReplay) {
  const streams: Array<[string, { symbol: string; type: EventType; memory: StreamMemory }]> = []
  for (const type of ['trade', 'aggTrade'] as const) {
    const { epoch, last, lastTimeMs, holes } = sequences[type]
    if (last !== null)
      streams.push([streamName(symbol, type), { symbol, type, memory: { epoch, last, lastTimeMs, holes } }])
  }
  if (quote !== null) {
    const memory = { epoch: 0, last: quote.last, lastTimeMs: quote.receiptMs, holes: [] }
    streams.push([streamName(symbol, 'bookTicker'), { symbol, type: 'bookTicker', memory }])
  }
  return streams
}

function asIdGap(gap: Checkpoint['open_gaps'][number]): IdGap[] {
  const { event_type, from_id, to_id } = gap
  return event_type === 'bookTicker' || from_id === null || to_id === null
    ? []
    : [{ ...gap, event_type, from_id, to_id }]
}

/** A message that is no JSON names no id; the consumer makes it a dead letter. */
function parse(value: Buffer | null): unknown {
  try {
    return value === null ? null : JSON.parse(value.toString())
  } catch {
    return null
  }
}
