import type { FetchedMessage } from '../../foundation/kafka/codec/fetched-message.ts'
import { HEADER, headersNamed, headerText, readEpoch } from '../../foundation/kafka/headers.ts'
import { partitionOf } from '../../foundation/kafka/partition-map.ts'
import type { Position } from '../../foundation/kafka/position.ts'
import type { TopicMetadata } from '../../foundation/kafka/topic-metadata.ts'
import { GAP, type Gap } from '../../foundation/market/gap.ts'
import { isFields, readAggTrade, readBookTicker, readTrade } from '../../foundation/market/payload.ts'
import { MICROSECONDS_IN } from '../../foundation/market/time-unit.ts'
import { asIdGap, type IdGap } from '../continuity/gap-rows.ts'
import type { EventMark } from '../messages/outgoing-message.ts'
import { AcknowledgedState } from './acknowledged-state.ts'
import { type Checkpoint, emptyCheckpoint, parseCheckpoint } from './checkpoint.ts'
import { tailsOf } from './checkpoint-writer.ts'

/** Rows of the ledger with ids, each in its newest revision. */
export interface RowsByWriter {
  /** The last instance over the symbol has written them. */
  readonly own: readonly IdGap[]
  /** An older one has, while the last was there already. */
  readonly foreign: readonly IdGap[]
  /** Rows that have no ids any more. */
  readonly emptied: readonly Gap[]
}

/**
 * Puts together what Kafka knows of the symbols: their checkpoints, of which the newest counts, and on top of each the
 * messages that stand behind it in the topics of events and of the ledger.
 */
export class RecoveryFold {
  readonly memory = new AcknowledgedState()
  readonly #wanted: ReadonlySet<string>
  readonly #topics: ReadonlyMap<string, TopicMetadata>
  readonly #checkpoints = new Map<string, Checkpoint>()
  /** Who has started last over each symbol. */
  readonly #owners = new Map<string, string>()
  /** The processes that wrote the checkpoints. */
  readonly instances = new Set<string>()
  /** Messages taken from the topics behind the checkpoints. */
  recoveredMessages = 0

  /** The highest counter of a symbol's checkpoints. */
  readonly counters = new Map<string, number>()
  readonly #onUnreadable: (symbol: string, error: unknown) => void
  /** Up to where partitions that lost messages have what checkpoints were taken of, by `topic:partition`. */
  readonly #truncations: ReadonlyMap<string, number>
  readonly #quoteReceiptsMs = new Map<string, number>()
  /** The windows of quotes that Kafka has lost, where others follow them; by symbol. */
  readonly lostQuotes = new Map<string, { readonly fromMs: number; readonly toMs: number }>()
  /** What the topic of the ledger had after the checkpoints. */
  readonly #rows = new Set<string>()
  readonly #ownRows = new Map<string, Gap>()
  readonly #foreignRows = new Map<string, Gap>()
  /** The newest checkpoint that is not believed, by symbol. */
  readonly #disbelieved = new Map<string, Checkpoint>()

  /**
   * @param onUnreadable called for a checkpoint that is skipped
   * @param truncations a checkpoint that was taken of more than they leave is not believed
   */
  constructor(
    symbols: readonly string[],
    topics: ReadonlyMap<string, TopicMetadata>,
    onUnreadable: (symbol: string, error: unknown) => void,
    truncations: ReadonlyMap<string, number> = new Map(),
  ) {
    this.#truncations = truncations
    this.#wanted = new Set(symbols)
    this.#topics = topics
    this.#onUnreadable = onUnreadable
  }

  /** Partitions that lost messages. */
  get truncated(): number {
    return this.#truncations.size
  }

  checkpoint({ key, value }: FetchedMessage): void {
    const symbol = key?.toString() ?? ''
    if (!this.#wanted.has(symbol) || value === null) return
    let checkpoint: Checkpoint
    try {
      checkpoint = parseCheckpoint(value.toString())
    } catch (error) {
      this.#onUnreadable(symbol, error)
      this.#doWithout(symbol)
      return
    }
    const { instance, kind, counter } = checkpoint
    this.counters.set(symbol, Math.max(counter, this.counters.get(symbol) ?? 0))
    this.instances.add(instance)
    if (kind === 'start') this.#owners.set(symbol, instance)
    // An older instance that had not noticed yet: its offsets skip what the newer one had written meanwhile.
    else if ((this.#owners.get(symbol) ?? instance) !== instance) return
    const known = this.#checkpoints.get(symbol)
    // After a change of the partition count an older one may stand in another partition.
    if (known !== undefined && known.counter > counter) return
    if (this.#claimsOf(checkpoint).some((claim) => claim.offset > this.#sureUpTo(claim))) {
      this.#disbelieved.set(symbol, checkpoint)
      this.#doWithout(symbol)
      return
    }
    this.#disbelieved.delete(symbol)
    this.#take(symbol, checkpoint)
  }

  /** A partition of the checkpoints has none, and may have lost them: symbols that would have theirs there need not be new. */
  noCheckpoints(topic: string, partition: number): void {
    for (const symbol of this.#wanted) {
      if (partitionOf(symbol, this.#partitionsOf(topic)) === partition && !this.#checkpoints.has(symbol))
        this.#checkpoints.set(symbol, emptyCheckpoint('none'))
    }
  }

  /** The places at which the checkpoints that count hold. */
  claims(): Position[] {
    const all = [...this.#checkpoints.values()].flatMap((checkpoint) => this.#claimsOf(checkpoint))
    return [...new Map(all.map((claim) => [Object.values(claim).join(' '), claim])).values()]
  }

  /** Whether a topic was deleted and made again since the checkpoints that count. */
  isRecreated(topic: string): boolean {
    return [...this.#checkpoints.values()].some((checkpoint) => !this.#isOf(checkpoint, topic))
  }

  /** The one before holds, and without one the topics are read from their beginning. */
  #doWithout(symbol: string): void {
    if (!this.#checkpoints.has(symbol)) this.#take(symbol, emptyCheckpoint('unreadable'))
  }

  #take(symbol: string, checkpoint: Checkpoint): void {
    this.#checkpoints.set(symbol, checkpoint)
    this.memory.restore(symbol, checkpoint)
    if (checkpoint.bookTicker === null) this.#quoteReceiptsMs.delete(symbol)
    else this.#quoteReceiptsMs.set(symbol, checkpoint.bookTicker.last_receipt)
  }

  /** To be called before the topics are read, which may tell that the rows were closed since. */
  addDisbelievedRows(): void {
    for (const { open_gaps, pending_gaps } of this.#disbelieved.values())
      this.memory.hadOpen([...open_gaps, ...pending_gaps])
  }

  /**
   * To be called once the topics are read. A checkpoint that is not believed does not tell what Kafka has, but still what
   * the exchange had: where nothing of it is left in the topics, the symbol would pass for a new one.
   */
  addDisbelieved(tradesTopic: string): void {
    for (const [symbol, checkpoint] of this.#disbelieved) {
      const claimed = checkpoint.offsets[tradesTopic] ?? 0
      const partition = partitionOf(symbol, this.#partitionsOf(tradesTopic))
      const lost = Math.max(0, claimed - this.#sureUpTo({ topic: tradesTopic, partition }))
      this.memory.hadReached(symbol, checkpoint, lost)
    }
  }

  /** The places at which a checkpoint holds. In a topic that was made again since there is none. */
  #claimsOf(checkpoint: Checkpoint): Position[] {
    return tailsOf(checkpoint)
      .filter(({ topic }) => this.#isOf(checkpoint, topic))
      .map((tail) => ({ ...tail, leaderEpoch: checkpoint.leader_epochs[tail.topic] ?? -1 }))
  }

  #isOf(checkpoint: Checkpoint, topic: string): boolean {
    const id = checkpoint.topic_ids[topic]
    return id === undefined || id === this.#topics.get(topic)?.id
  }

  /** The offset at which a checkpoint holds; 0 where it was taken of another partition, or of a topic of before. */
  #offsetIn(checkpoint: Checkpoint, topic: string, partition: number): number {
    const { offsets, partitions } = checkpoint
    const isSame = partitions === undefined || partitions[topic] === partition
    return isSame && this.#isOf(checkpoint, topic) ? (offsets[topic] ?? 0) : 0
  }

  #partitionsOf(topic: string): number {
    return this.#topics.get(topic)?.partitions ?? 1
  }

  #sureUpTo({ topic, partition }: Pick<Position, 'topic' | 'partition'>): number {
    return this.#truncations.get(`${topic}:${partition}`) ?? Number.POSITIVE_INFINITY
  }

  /** From where a partition is to be read for all symbols that are in it; null when none is. */
  offset(topic: string, partition: number): number | null {
    const count = this.#partitionsOf(topic)
    const offsets = [...this.#checkpoints].flatMap(([symbol, checkpoint]) =>
      partitionOf(symbol, count) === partition ? [this.#offsetIn(checkpoint, topic, partition)] : [],
    )
    return offsets.length === 0 ? null : Math.min(...offsets)
  }

  readonly event = (topic: string, { offset, key, value, headers }: FetchedMessage): void => {
    const symbol = key?.toString() ?? ''
    if (!this.#isBehind(symbol, topic, offset)) return
    const mark = markOf(value, readEpoch(headerText(headers, HEADER.epoch) ?? '0'))
    if (mark?.symbol !== symbol) return
    this.recoveredMessages++
    if (mark.type === 'bookTicker') {
      this.#noteQuote(topic, offset, mark)
      for (const row of headersNamed(HEADER.outage, headers)) this.#noteOutage(row)
    }
    this.memory.event({ ...mark, clockAheadMs: clockAheadOf(headers) })
  }

  readonly gap = (topic: string, message: FetchedMessage): void => {
    const gap = parseGap(message.value)
    if (gap === null || !this.#isBehind(gap.symbol, topic, message.offset)) return
    this.recoveredMessages++
    if (!isRequest(gap, message)) this.#noteWriter(gap, headerText(message.headers, HEADER.instance))
    this.#rows.add(revisionOf(gap))
    // The trades after the checkpoint, which are read next, tell what is left of them.
    this.memory.gap(gap, this.#disbelieved.has(gap.symbol))
  }

  #noteWriter(gap: Gap, writer: string | null): void {
    const owner = this.#checkpoints.get(gap.symbol)?.instance
    if (owner === undefined || !this.instances.has(owner)) return
    const rows = writer === owner ? this.#ownRows : this.#foreignRows
    if ((rows.get(gap.gap_id)?.revision ?? 0) < gap.revision) rows.set(gap.gap_id, gap)
  }

  /** The rows that the last instance had not compared yet when it ended. */
  get rows(): RowsByWriter {
    const idGaps = (rows: ReadonlyMap<string, Gap>) => [...rows.values()].flatMap(asIdGap)
    const all = [...this.#ownRows.values(), ...this.#foreignRows.values()]
    const emptied = all.filter((row) => row.event_type !== 'bookTicker' && row.from_id === null)
    return { own: idGaps(this.#ownRows), foreign: idGaps(this.#foreignRows), emptied }
  }

  /** The quote after an outage was acknowledged; the row in the ledger's topic perhaps not. */
  #noteOutage(row: Buffer): void {
    const gap = parseGap(row)
    if (gap !== null && !this.#rows.has(revisionOf(gap))) this.memory.published(gap)
  }

  /** Quotes have no ids to tell a hole by: the window is from the last one before to the first one that follows. */
  #noteQuote(topic: string, offset: number, { symbol, timeMs }: EventMark): void {
    const partition = partitionOf(symbol, this.#partitionsOf(topic))
    const fromMs =
      this.#quoteReceiptsMs.get(symbol) ?? this.#disbelieved.get(symbol)?.bookTicker?.last_receipt
    if (offset < this.#sureUpTo({ topic, partition })) this.#quoteReceiptsMs.set(symbol, timeMs)
    else if (fromMs !== undefined && !this.lostQuotes.has(symbol))
      this.lostQuotes.set(symbol, { fromMs, toMs: timeMs })
  }

  #isBehind(symbol: string, topic: string, offset: number): boolean {
    const checkpoint = this.#checkpoints.get(symbol)
    // Without a checkpoint in a partition that has others: what is read for those counts.
    if (checkpoint === undefined) return this.#wanted.has(symbol)
    return offset >= this.#offsetIn(checkpoint, topic, partitionOf(symbol, this.#partitionsOf(topic)))
  }
}

/** A row of the ledger; null for a message that is none, which the consumer makes a dead letter. */
export function parseGap(value: Buffer | null): Gap | null {
  const gap = GAP.safeParse(parse(value))
  return gap.success ? gap.data : null
}

/** Whether a row asks ingestion to reopen a gap: every row of ingestion names the instance that wrote it. */
export function isRequest({ status }: Gap, { headers }: FetchedMessage): boolean {
  return status === 'open' && headerText(headers, HEADER.instance) === null
}

function revisionOf({ gap_id, revision }: Gap): string {
  return `${gap_id} ${revision}`
}

/** @param epoch null where the header says none: the consumer does not store such a trade either */
function markOf(value: Buffer | null, epoch: number | null): EventMark | null {
  const data = parse(value)
  if (!isFields(data)) return null
  if (data['e'] === undefined) {
    const quote = readBookTicker(data)
    if (typeof quote === 'string') return null
    const timeMs = Number(data['ingestion_timestamp'])
    return { symbol: quote.s, type: 'bookTicker', epoch: 0, id: quote.u, timeMs }
  }
  const trade = data['e'] === 'trade' ? readTrade(data) : readAggTrade(data)
  if (typeof trade === 'string' || epoch === null) return null
  const timeMs = Math.floor((trade.T * MICROSECONDS_IN[trade.unit]) / 1000)
  return 't' in trade
    ? { symbol: trade.s, type: 'trade', epoch, id: trade.t, timeMs }
    : { symbol: trade.s, type: 'aggTrade', epoch, id: trade.a, timeMs }
}

/** Undefined where the message does not say, null where nothing was known. */
function clockAheadOf(headers: FetchedMessage['headers']): number | null | undefined {
  const text = headerText(headers, HEADER.clockAhead)
  if (text === null) return undefined
  return /^-?\d+$/.test(text) ? Number(text) : null
}

/** A message that is no JSON names no id; the consumer makes it a dead letter. */
function parse(value: Buffer | null): unknown {
  try {
    return value === null ? null : JSON.parse(value.toString())
  } catch {
    return null
  }
}
