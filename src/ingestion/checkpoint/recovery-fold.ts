import type { FetchedMessage } from '../../foundation/kafka/codec/record-batch.ts'
import type { TopicNames } from '../../foundation/kafka/config.ts'
import { HEADER, headersNamed, headerText } from '../../foundation/kafka/headers.ts'
import { Decoder } from '../../foundation/kafka/message-decoder.ts'
import { keyOf, type Position, partitionOf, type TopicPartition } from '../../foundation/kafka/partition.ts'
import type { TopicMetadata } from '../../foundation/kafka/topic-metadata.ts'
import {
  type EventTopic,
  exchangeTimeMs,
  isSequenced,
  isStreamType,
  isTradeType,
} from '../../foundation/market/event.ts'
import { GAP, type Gap } from '../../foundation/market/gap.ts'
import { parseJson } from '../../foundation/runtime/outside-text.ts'
import { asIdGap, type IdGap } from '../continuity/gap-rows.ts'
import type { EventMark } from '../messages/message.ts'
import { AcknowledgedState } from './acknowledged-state.ts'
import { type Checkpoint, emptyCheckpoint, parseCheckpoint } from './checkpoint.ts'
import { tailsOf } from './checkpoint-writer.ts'

/** Ledger rows with ids, each in its newest revision. */
export interface RowsByWriter {
  /** Written by the last instance over the symbol, or by an import. */
  readonly own: readonly IdGap[]
  /** Written by an older instance after the last one had started. */
  readonly foreign: readonly IdGap[]
  /** Rows whose ids have all moved to other rows. */
  readonly emptied: readonly Gap[]
}

/** Combines the newest checkpoint of each symbol with the events and ledger rows after it. */
export class RecoveryFold {
  readonly memory = new AcknowledgedState()
  readonly #wanted: ReadonlySet<string>
  readonly #topics: ReadonlyMap<string, TopicMetadata>
  readonly #checkpoints = new Map<string, Checkpoint>()
  /** The instance that started last over each symbol. */
  readonly #owners = new Map<string, string>()
  readonly #decoder = new Decoder()
  /** The processes that wrote the checkpoints. */
  readonly instances = new Set<string>()
  /** Messages replayed after the checkpoints. */
  recoveredMessages = 0

  /** The highest counter of a symbol's checkpoints. */
  readonly counters = new Map<string, number>()
  readonly #onUnreadable: (symbol: string, error: unknown) => void
  /** Up to where partitions that lost messages have what checkpoints cover, by `topic:partition`. */
  readonly #truncations: ReadonlyMap<string, number>
  readonly #quoteReceiptsMs = new Map<string, number>()
  /** Windows of quotes that Kafka has lost and others follow, by symbol. */
  readonly lostQuotes = new Map<string, { readonly fromMs: number; readonly toMs: number }>()
  /** Rows in the ledger's topic after the checkpoints. */
  readonly #rows = new Set<string>()
  readonly #ownRows = new Map<string, Gap>()
  readonly #foreignRows = new Map<string, Gap>()
  /** The newest checkpoint of a symbol that covers messages which Kafka has lost; not accepted. */
  readonly #disbelieved = new Map<string, Checkpoint>()

  /** @param truncations checkpoints that cover more than these offsets are not accepted */
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

  get truncations(): number {
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
    // An older instance that has not noticed the newer one yet: its offsets skip messages of the
    // newer one.
    else if ((this.#owners.get(symbol) ?? instance) !== instance) return
    const known = this.#checkpoints.get(symbol)
    // After a change of the partition count, an older checkpoint may follow from another partition.
    if (known !== undefined && known.counter > counter) return
    if (this.#claimsOf(checkpoint).some((claim) => claim.offset > this.#sureUpTo(claim))) {
      this.#disbelieved.set(symbol, checkpoint)
      this.#doWithout(symbol)
      return
    }
    this.#disbelieved.delete(symbol)
    this.#take(symbol, checkpoint)
  }

  /** Handles a partition without checkpoints. It may have lost them: its symbols are not taken as new. */
  noCheckpoints({ topic, partition }: TopicPartition): void {
    for (const symbol of this.#wanted) {
      if (this.#partitionOf(symbol, topic) === partition && !this.#checkpoints.has(symbol))
        this.#checkpoints.set(symbol, emptyCheckpoint('none'))
    }
  }

  /** Returns the positions at which the accepted checkpoints hold. */
  claims(): Position[] {
    const all = [...this.#checkpoints.values()].flatMap((checkpoint) => this.#claimsOf(checkpoint))
    return [...new Map(all.map((claim) => [Object.values(claim).join(' '), claim])).values()]
  }

  /** Whether a topic was deleted and recreated since the accepted checkpoints. */
  isRecreated(topic: string): boolean {
    return [...this.#checkpoints.values()].some((checkpoint) => !this.#isOf(checkpoint, topic))
  }

  /** Keeps the previous checkpoint; without one the topics are read from their beginning. */
  #doWithout(symbol: string): void {
    if (!this.#checkpoints.has(symbol)) this.#take(symbol, emptyCheckpoint('unreadable'))
  }

  #take(symbol: string, checkpoint: Checkpoint): void {
    this.#checkpoints.set(symbol, checkpoint)
    this.memory.restore(symbol, checkpoint)
    if (checkpoint.bookTicker === null) this.#quoteReceiptsMs.delete(symbol)
    else this.#quoteReceiptsMs.set(symbol, checkpoint.bookTicker.last_receipt)
  }

  /** Adds the open rows of checkpoints not accepted. The topics, read next, may show that they were closed. */
  addDisbelievedRows(): void {
    for (const { open_gaps, pending_gaps } of this.#disbelieved.values())
      this.memory.hadOpen([...open_gaps, ...pending_gaps])
  }

  /**
   * Adds which ids the exchange had, from the checkpoints not accepted. Call it after the topics are
   * read. Without it, a symbol with no messages left would look new.
   */
  addDisbelieved(names: Pick<TopicNames, 'trades' | 'depth'>): void {
    for (const [symbol, checkpoint] of this.#disbelieved) {
      const lostIn = (topic: string) => {
        const claimed = checkpoint.offsets[topic] ?? 0
        return Math.max(0, claimed - this.#sureUpTo({ topic, partition: this.#partitionOf(symbol, topic) }))
      }
      this.memory.hadReached(symbol, checkpoint, (type) =>
        lostIn(isTradeType(type) ? names.trades : names.depth),
      )
    }
  }

  /** Returns the positions at which a checkpoint holds; none in a topic that was recreated since. */
  #claimsOf(checkpoint: Checkpoint): Position[] {
    return tailsOf(checkpoint)
      .filter(({ topic }) => this.#isOf(checkpoint, topic))
      .map((tail) => ({ ...tail, leaderEpoch: checkpoint.leader_epochs[tail.topic] ?? -1 }))
  }

  #isOf(checkpoint: Checkpoint, topic: string): boolean {
    const id = checkpoint.topic_ids[topic]
    return id === undefined || id === this.#topics.get(topic)?.id
  }

  /** Returns the offset at which a checkpoint holds; 0 in another partition or in a recreated topic. */
  #offsetIn(checkpoint: Checkpoint, topic: string, partition: number): number {
    const { offsets, partitions } = checkpoint
    const isSame = partitions === undefined || partitions[topic] === partition
    return isSame && this.#isOf(checkpoint, topic) ? (offsets[topic] ?? 0) : 0
  }

  #partitionOf(symbol: string, topic: string): number {
    return partitionOf(symbol, this.#topics.get(topic)?.partitions ?? 1)
  }

  #sureUpTo(partition: TopicPartition): number {
    return this.#truncations.get(keyOf(partition)) ?? Number.POSITIVE_INFINITY
  }

  /** Returns from where to read a partition for all its symbols; null if it has none of them. */
  offset(topic: string, partition: number): number | null {
    const offsets = [...this.#checkpoints].flatMap(([symbol, checkpoint]) =>
      this.#partitionOf(symbol, topic) === partition ? [this.#offsetIn(checkpoint, topic, partition)] : [],
    )
    return offsets.length === 0 ? null : Math.min(...offsets)
  }

  event(kind: EventTopic, topic: string, message: FetchedMessage): void {
    const { offset, key, headers } = message
    const symbol = key?.toString() ?? ''
    if (!this.#isBehind(symbol, topic, offset)) return
    // The consumer does not store what cannot be decoded either.
    if (this.#decoder.decode(kind, message) !== null) return
    const { type, firstId, id, epoch, receivedUs, symbol: known, source } = this.#decoder.event
    if (known.text !== symbol || !isStreamType(type)) return
    this.recoveredMessages++
    const timeMs = exchangeTimeMs(this.#decoder.event) ?? Math.floor(receivedUs / 1000)
    const mark = { symbol, type, epoch, firstId, id, timeMs }
    if (source === 'archive') {
      this.memory.imported(mark)
      return
    }
    if (!isSequenced(type)) {
      this.#noteQuote(topic, offset, mark)
      for (const row of headersNamed(HEADER.outage, headers)) this.#noteOutage(row)
    }
    this.memory.event({ ...mark, clockAheadMs: clockAheadOf(headers) })
  }

  gap(topic: string, message: FetchedMessage): void {
    const gap = parseGap(message.value)
    if (gap === null || !this.#isBehind(gap.symbol, topic, message.offset)) return
    this.recoveredMessages++
    if (!isRequest(gap, message)) this.#noteWriter(gap, headerText(message.headers, HEADER.instance))
    this.#rows.add(revisionOf(gap))
    // The trades after the checkpoint are read next and show which of its ids are left.
    this.memory.gap(gap, this.#disbelieved.has(gap.symbol))
  }

  #noteWriter(gap: Gap, writer: string | null): void {
    const owner = this.#checkpoints.get(gap.symbol)?.instance
    if (owner === undefined || !this.instances.has(owner)) return
    // A row of an import stands as it is, like those of the last instance.
    const rows = writer === owner || writer === null ? this.#ownRows : this.#foreignRows
    if ((rows.get(gap.gap_id)?.revision ?? 0) < gap.revision) rows.set(gap.gap_id, gap)
  }

  /** Returns the rows that the last instance had not compared yet when it ended. */
  get rows(): RowsByWriter {
    const idGaps = (rows: ReadonlyMap<string, Gap>) => [...rows.values()].flatMap(asIdGap)
    const all = [...this.#ownRows.values(), ...this.#foreignRows.values()]
    const emptied = all.filter((row) => isSequenced(row.event_type) && row.from_id === null)
    return { own: idGaps(this.#ownRows), foreign: idGaps(this.#foreignRows), emptied }
  }

  /** Adds the outage in a quote: Kafka has the quote, but perhaps not the ledger row. */
  #noteOutage(row: Buffer): void {
    const gap = parseGap(row)
    if (gap !== null && !this.#rows.has(revisionOf(gap))) this.memory.published(gap)
  }

  /** Notes a window of lost quotes, from the last one before to the first one after: no ids reveal it. */
  #noteQuote(topic: string, offset: number, { symbol, timeMs }: EventMark): void {
    const partition = this.#partitionOf(symbol, topic)
    const fromMs =
      this.#quoteReceiptsMs.get(symbol) ?? this.#disbelieved.get(symbol)?.bookTicker?.last_receipt
    if (offset < this.#sureUpTo({ topic, partition })) this.#quoteReceiptsMs.set(symbol, timeMs)
    else if (fromMs !== undefined && !this.lostQuotes.has(symbol))
      this.lostQuotes.set(symbol, { fromMs, toMs: timeMs })
  }

  #isBehind(symbol: string, topic: string, offset: number): boolean {
    const checkpoint = this.#checkpoints.get(symbol)
    // Without a checkpoint, all that is read for others of its partition counts.
    if (checkpoint === undefined) return this.#wanted.has(symbol)
    return offset >= this.#offsetIn(checkpoint, topic, this.#partitionOf(symbol, topic))
  }
}

/** Parses a ledger row; null for any other message, which the consumer makes a dead letter. */
export function parseGap(value: Buffer | null): Gap | null {
  const gap = GAP.safeParse(value === null ? null : parseJson(value.toString()))
  return gap.success ? gap.data : null
}

/** Whether a row requests that ingestion reopens a gap. Rows of ingestion name their instance. */
export function isRequest({ status }: Gap, { headers }: FetchedMessage): boolean {
  return status === 'open' && headerText(headers, HEADER.instance) === null
}

function revisionOf({ gap_id, revision }: Gap): string {
  return `${gap_id} ${revision}`
}

/** Undefined if the message has no value, null if the value was unknown. */
function clockAheadOf(headers: FetchedMessage['headers']): number | null | undefined {
  const text = headerText(headers, HEADER.clockAhead)
  if (text === null) return undefined
  return /^-?\d+$/.test(text) ? Number(text) : null
}
