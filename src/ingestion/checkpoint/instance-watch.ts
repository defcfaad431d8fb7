import type { FetchedMessage } from '../../foundation/kafka/codec/record-batch.ts'
import { HEADER, headerText } from '../../foundation/kafka/headers.ts'
import type { KafkaPort, RecordFetcher } from '../../foundation/kafka/kafka-port.ts'
import { deleteTopic, keyOf, type Position, type TopicPartition } from '../../foundation/kafka/partition.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import { type Checkpoint, parseCheckpoint } from './checkpoint.ts'
import { isRequest, parseGap } from './recovery-fold.ts'
import type { Tail } from './tail-epochs.ts'

/** Does not wait for messages: most checks find none. */
const LIMITS = { maxWaitMs: 0, minBytes: 1, maxBytes: 8 << 20 }

/** Nearly all records are of kind `running`; those are not parsed. */
const START = '"kind":"start"'

type Place = Pick<Position, 'offset' | 'leaderEpoch'>

export interface InstanceWatchOptions {
  readonly checkpoints: string
  readonly gaps: string
  readonly instance: string
  readonly symbols: ReadonlySet<string>
  /** Where reading begins: the ends before this instance wrote its start records. */
  readonly ends: readonly Tail[]
  /** The instances whose checkpoints recovery has found. */
  readonly olderInstances: Iterable<string>
  readonly log: Logger
}

/** Takes ledger rows that this instance has not written. */
export interface ForeignRows {
  /** Takes a row that a stopping older instance has written since this one started. */
  ofOlderInstance(gap: Gap): void
  /** Takes a row of an import, which has closed ids of an unrecoverable gap. */
  imported(gap: Gap): void
  /** Takes a request of the consumer or of an operator: its ids were forwarded but are not stored. */
  request(gap: Gap): void
}

/** Thrown when another instance has started over a symbol of this one, which must stop. */
export class OvertakenError extends TapelineError {}

/**
 * Watches for other instances over the same symbols: two at once would duplicate every bookTicker.
 * The one with the later offset in the checkpoints topic is newer, whatever the clocks say; the
 * older one stops. The newer one takes over ledger rows that the older one still wrote, and
 * requests to reopen a gap. Specification: C4, C5, L5.
 */
export class InstanceWatch {
  readonly #fetcher: RecordFetcher
  readonly #options: InstanceWatchOptions
  readonly #positions: Map<string, Place>
  #partitions: readonly TopicPartition[] = []
  /** Partitions in which our start records were read. */
  readonly #ownStartSeen = new Set<number>()
  /** Instances that started before us. A producer's retry may repeat their start records after ours. */
  readonly #older: Set<string>
  /** Number of topic recreations; a read that began before the latest returns data of the old topic. */
  #incarnations = 0
  #isConnected = false
  /** Detections of a partition that lost messages already read. */
  truncations = 0

  constructor(kafka: Pick<KafkaPort, 'fetcher'>, options: InstanceWatchOptions) {
    this.#fetcher = kafka.fetcher('tapeline-ingestion-watch', [options.checkpoints, options.gaps])
    this.#options = options
    this.#positions = new Map(options.ends.map((end) => [keyOf(end), { offset: end.offset }]))
    this.#older = new Set(options.olderInstances)
  }

  async connect(): Promise<void> {
    const topics = await this.#fetcher.connect()
    const { checkpoints, gaps } = this.#options
    this.#partitions = [checkpoints, gaps].flatMap((topic) =>
      Array.from({ length: topics.get(topic)?.partitions ?? 0 }, (_, partition) => ({ topic, partition })),
    )
  }

  /** Reads what others wrote. A partition that fails does not stop the rest. @throws OvertakenError */
  async check(rows: ForeignRows): Promise<void> {
    const incarnations = this.#incarnations
    if (!this.#isConnected) await this.connect()
    const errors: unknown[] = []
    for (const partition of this.#partitions) {
      try {
        await this.#readOn(partition, rows)
      } catch (error) {
        if (error instanceof OvertakenError) throw error
        errors.push(error)
      }
    }
    // A broker with stale metadata may still have answered for the old topic.
    if (errors.length === 0 && incarnations === this.#incarnations) this.#isConnected = true
    if (errors.length > 0) throw new AggregateError(errors, 'Partitions cannot be read', { cause: errors[0] })
  }

  async #readOn({ topic, partition }: TopicPartition, rows: ForeignRows): Promise<void> {
    const key = keyOf({ topic, partition })
    for (let isAtEnd = false; !isAtEnd; ) {
      const position = { topic, partition, ...(this.#positions.get(key) ?? { offset: 0 }) }
      const incarnations = this.#incarnations
      const fetched = await this.#fetcher.read(position, LIMITS)
      if (incarnations !== this.#incarnations) return
      const { error, diverging, nextOffset, nextLeaderEpoch, endOffset } = fetched
      if (error !== null || diverging !== null)
        return this.#moveBack(position, diverging ?? { offset: await this.#startOf(topic, partition) })
      for (const message of fetched.messages) {
        if (message.offset < position.offset) continue
        if (topic === this.#options.gaps) this.#lookAtGap(message, rows)
        else this.#lookAtCheckpoint(partition, message)
      }
      if (nextOffset !== null) this.#positions.set(key, { offset: nextOffset, leaderEpoch: nextLeaderEpoch })
      isAtEnd = nextOffset === null || nextOffset >= endOffset
    }
  }

  async #startOf(topic: string, partition: number): Promise<number> {
    const ranges = await this.#fetcher.offsetRanges([topic])
    return ranges.find((one) => one.partition === partition)?.start ?? 0
  }

  /** Moves back to reread: lost messages, and those that replaced them, may include a start record. */
  #moveBack(position: Position, to: Place): void {
    const { topic, partition, offset } = position
    this.truncations++
    this.#options.log.error(
      { topic, partition, position: offset, offset: to.offset },
      `Partition ${partition} of ${topic} lost messages that were read, up to offset ${offset}. Rereading it from ${to.offset}`,
    )
    this.#positions.set(keyOf(position), to)
  }

  /**
   * Reads a topic that was deleted and recreated from its beginning. Start records of the old topic
   * no longer count: each running instance writes its own into the new one, and the later one is
   * newer.
   */
  recreated(topic: string): void {
    this.#incarnations++
    this.#isConnected = false
    deleteTopic(this.#positions, topic)
    if (topic !== this.#options.checkpoints) return
    this.#ownStartSeen.clear()
    this.#older.clear()
  }

  /** Returns up to which offset a partition was read. */
  position(topic: string, partition: number): number {
    return this.#positions.get(keyOf({ topic, partition }))?.offset ?? 0
  }

  async close(): Promise<void> {
    await this.#fetcher.close()
  }

  #lookAtGap(message: FetchedMessage, rows: ForeignRows): void {
    const { value, headers } = message
    if (value === null || headerText(headers, HEADER.instance) === this.#options.instance) return
    const gap = parseGap(value)
    if (gap === null || !this.#options.symbols.has(gap.symbol)) return
    if (isRequest(gap, message)) rows.request(gap)
    else if (headerText(headers, HEADER.instance) === null) rows.imported(gap)
    else rows.ofOlderInstance(gap)
  }

  #lookAtCheckpoint(partition: number, { key, value }: FetchedMessage): void {
    const symbol = key?.toString() ?? ''
    if (!this.#options.symbols.has(symbol) || value === null || !value.includes(START)) return
    const start = readStart(value)
    if (start === null) return
    const { instance } = start
    if (instance === this.#options.instance) this.#ownStartSeen.add(partition)
    else if (!this.#ownStartSeen.has(partition)) this.#older.add(instance)
    else if (!this.#older.has(instance))
      throw new OvertakenError(
        'KAFKA',
        `Another ingestion (${instance}) has started over ${symbol}; this one is stopping`,
        { fix: 'Run one ingestion per symbol; split the symbols between ingestions with SHARD.' },
      )
  }
}

/** Returns a start record; null for other records and for unreadable ones, which recovery reports. */
function readStart(value: Buffer): Checkpoint | null {
  try {
    const checkpoint = parseCheckpoint(value.toString())
    return checkpoint.kind === 'start' ? checkpoint : null
  } catch {
    return null
  }
}
