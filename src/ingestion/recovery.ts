import type { KafkaRecord } from '@platformatic/kafka'
import type { KafkaConnection, TopicNames } from '../kafka/config.ts'
import { PartitionFetcher } from '../kafka/partition-fetcher.ts'
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
 * Reads the checkpoints of the symbols, and replays on top of them what stands behind in the event topics: after
 * this, which ids Kafka has is known as ranges, whether or not a ledger message survived. A symbol without a
 * checkpoint is new.
 */
export async function recover(
  connection: KafkaConnection,
  names: TopicNames,
  symbols: readonly string[],
): Promise<Recovered> {
  const topics = [names.trades, names.bookTicker, names.checkpoints]
  const fetcher = new PartitionFetcher(connection, 'tapeline-ingestion-recovery', topics)
  try {
    const metadata = await fetcher.connect()
    const ranges = await fetcher.offsetRanges()
    const wanted = new Set(symbols)
    const states = new Map<string, SymbolReplay>()
    const checkpointEnds = new Map<number, number>()
    for (const { partition, start, end } of ranges.filter(({ topic }) => topic === names.checkpoints)) {
      checkpointEnds.set(partition, end)
      await readPartition(fetcher, names.checkpoints, partition, start, end, (record) => {
        const symbol = record.key?.toString() ?? SOURCE_KEY
        if (symbol === SOURCE_KEY || !wanted.has(symbol) || record.value === null) return
        states.set(symbol, replayOf(parseCheckpoint(record.value.toString())))
      })
    }
    let replayed = 0
    for (const topic of [names.trades, names.bookTicker]) {
      for (const { partition, start, end } of ranges.filter((range) => range.topic === topic)) {
        const count = metadata.get(topic)?.partitions ?? 1
        const here = [...states].filter(([symbol]) => partitionOf(symbol, count) === partition)
        const from = Math.min(end, ...here.map(([, { checkpoint }]) => checkpoint.offsets[topic] ?? start))
        await readPartition(fetcher, topic, partition, Math.max(start, from), end, (record, offset) => {
          const state = states.get(record.key?.toString() ?? '')
          if (state === undefined || offset < (state.checkpoint.offsets[topic] ?? 0)) return
          replayed++
          replay(state, record)
        })
      }
    }
    return {
      streams: new Map([...states].flatMap(([symbol, state]) => memories(symbol, state))),
      openGaps: [...states.values()].flatMap(({ checkpoint }) => checkpoint.open_gaps.flatMap(asIdGap)),
      offsets: ranges
        .filter(({ topic }) => topic !== names.checkpoints)
        .map(({ topic, partition, end }) => ({ topic, partition, offset: end })),
      checkpointEnds,
      replayed,
    }
  } finally {
    await fetcher.close()
  }
}

async function readPartition(
  fetcher: PartitionFetcher,
  topic: string,
  partition: number,
  from: number,
  end: number,
  onRecord: (record: KafkaRecord, offset: number) => void,
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

function replay(state: SymbolReplay, record: KafkaRecord): void {
  const data = parse(record.value)
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
  sequence.record(sequence.epoch, id, trade.T)
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
