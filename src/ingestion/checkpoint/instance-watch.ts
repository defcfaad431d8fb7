import type { FetchedMessage } from '../../foundation/kafka/codec/fetched-message.ts'
import { HEADER, headerText } from '../../foundation/kafka/headers.ts'
import type { KafkaPort, RecordFetcher } from '../../foundation/kafka/kafka-port.ts'
import type { Position } from '../../foundation/kafka/position.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import { type Checkpoint, parseCheckpoint } from './checkpoint.ts'
import { isRequest, parseGap } from './recovery-fold.ts'

/** Nothing is waited for: most checks find nothing new. */
const LIMITS = { maxWaitMs: 0, minBytes: 1, maxBytes: 8 << 20 }

/** Nearly all records are not of a start; those are not parsed. */
const START = '"kind":"start"'

type Place = Pick<Position, 'offset' | 'leaderEpoch'>

export interface InstanceWatchOptions {
  readonly checkpoints: string
  readonly gaps: string
  /** This instance. */
  readonly instance: string
  /** Grows while ingestion runs. */
  readonly symbols: ReadonlySet<string>
  /** Where reading begins, by `topic:partition`: the ends before this instance wrote its start records. */
  readonly ends: ReadonlyMap<string, number>
  /** Whose checkpoints were found. */
  readonly olderInstances: Iterable<string>
  /** A row of the ledger that another instance has written since. */
  readonly onForeignGap: (gap: Gap) => void
  /** The consumer, or an operator, asks for a gap to be reopened. */
  readonly onRequest: (gap: Gap) => void
  readonly log: Logger
}

/** Another instance has started over a symbol of this one, which must stop. */
export class OvertakenError extends TapelineError {}

/**
 * Looks for other instances over the same symbols: two at once would double every bookTicker, which nothing can
 * tell apart afterwards. Later by offset in the checkpoints topic is newer, whatever the clocks say; the older one
 * stops. What it still entered into the ledger, the newer one takes over, as it does requests to
 * reopen a gap. Specification: C4, C5, L5.
 */
export class InstanceWatch {
  readonly #fetcher: RecordFetcher
  readonly #options: InstanceWatchOptions
  readonly #symbols: ReadonlySet<string>
  readonly #positions: Map<string, Place>
  #partitions: ReadonlyArray<Pick<Position, 'topic' | 'partition'>> = []
  /** Partitions in which our own start records have been read. */
  readonly #ownStartSeen = new Set<number>()
  /** Instances that started before us: a producer's second attempt may repeat their start records after ours. */
  readonly #older: Set<string>
  /** Counts topics that were made again: what a read brings that began before is of the old one. */
  #incarnations = 0
  #isConnected = false
  /** Times that a partition had lost what was read of it. */
  truncations = 0

  constructor(kafka: Pick<KafkaPort, 'fetcher'>, options: InstanceWatchOptions) {
    this.#fetcher = kafka.fetcher('tapeline-ingestion-watch', [options.checkpoints, options.gaps])
    this.#options = options
    this.#symbols = options.symbols
    this.#positions = new Map([...options.ends].map(([key, offset]) => [key, { offset }]))
    this.#older = new Set(options.olderInstances)
  }

  async connect(): Promise<void> {
    const topics = await this.#fetcher.connect()
    const { checkpoints, gaps } = this.#options
    this.#partitions = [checkpoints, gaps].flatMap((topic) =>
      Array.from({ length: topics.get(topic)?.partitions ?? 0 }, (_, partition) => ({ topic, partition })),
    )
  }

  /**
   * Partitions that cannot be read do not hide the others.
   *
   * @throws OvertakenError when another instance has started over one of our symbols after we did
   */
  async check(): Promise<void> {
    const incarnations = this.#incarnations
    if (!this.#isConnected) await this.connect()
    const errors: unknown[] = []
    for (const { topic, partition } of this.#partitions) {
      try {
        await this.#readOn(topic, partition)
      } catch (error) {
        if (error instanceof OvertakenError) throw error
        errors.push(error)
      }
    }
    // A broker may still have named the topic of before.
    if (errors.length === 0 && incarnations === this.#incarnations) this.#isConnected = true
    if (errors.length > 0) throw new AggregateError(errors, 'Partitions cannot be read', { cause: errors[0] })
  }

  async #readOn(topic: string, partition: number): Promise<void> {
    for (let isAtEnd = false; !isAtEnd; ) {
      const position = {
        topic,
        partition,
        ...(this.#positions.get(`${topic}:${partition}`) ?? { offset: 0 }),
      }
      const incarnations = this.#incarnations
      const fetched = await this.#fetcher.read(position, LIMITS)
      if (incarnations !== this.#incarnations) return
      const { nextOffset, nextLeaderEpoch, endOffset } = fetched
      if (fetched.error !== null || fetched.diverging !== null) {
        const to = fetched.diverging ?? { offset: await this.#startOf(topic, partition) }
        this.#moveBack(position, to)
        return
      }
      for (const message of fetched.messages) {
        if (message.offset < position.offset) continue
        if (topic === this.#options.gaps) this.#lookAtGap(message)
        else this.#lookAtCheckpoint(partition, message)
      }
      if (nextOffset !== null) this.#move(position, { offset: nextOffset, leaderEpoch: nextLeaderEpoch })
      isAtEnd = nextOffset === null || nextOffset >= endOffset
    }
  }

  async #startOf(topic: string, partition: number): Promise<number> {
    const ranges = await this.#fetcher.offsetRanges([topic])
    return ranges.find((one) => one.partition === partition)?.start ?? 0
  }

  #move({ topic, partition }: Position, to: Place): void {
    this.#positions.set(`${topic}:${partition}`, to)
  }

  /** A start record may be among the lost messages, and among those that took their place. */
  #moveBack(position: Position, to: Place): void {
    const { topic, partition, offset } = position
    this.truncations++
    this.#options.log.error(
      { topic, partition, position: offset, offset: to.offset },
      `Partition ${partition} of ${topic} no longer has what was read up to ${offset}. Reading it again from ${to.offset}`,
    )
    this.#move(position, to)
  }

  /**
   * The topic was deleted and made again, and is read from its beginning. Who started in the old one counts for nothing:
   * each running instance writes its start records into the new one, where the later is the newer.
   */
  recreated(topic: string): void {
    this.#incarnations++
    this.#isConnected = false
    for (const place of this.#positions.keys())
      if (place.startsWith(`${topic}:`)) this.#positions.delete(place)
    if (topic !== this.#options.checkpoints) return
    this.#ownStartSeen.clear()
    this.#older.clear()
  }

  /** Up to where it has read a partition. */
  position(topic: string, partition: number): number {
    return this.#positions.get(`${topic}:${partition}`)?.offset ?? 0
  }

  async close(): Promise<void> {
    await this.#fetcher.close()
  }

  #lookAtGap(message: FetchedMessage): void {
    const { value, headers } = message
    if (value === null || headerText(headers, HEADER.instance) === this.#options.instance) return
    const gap = parseGap(value)
    if (gap === null || !this.#symbols.has(gap.symbol)) return
    if (isRequest(gap, message)) this.#options.onRequest(gap)
    else this.#options.onForeignGap(gap)
  }

  #lookAtCheckpoint(partition: number, { key, value }: FetchedMessage): void {
    const symbol = key?.toString() ?? ''
    if (!this.#symbols.has(symbol) || value === null || !value.includes(START)) return
    const start = readStart(value)
    if (start === null) return
    const { instance } = start
    if (instance === this.#options.instance) this.#ownStartSeen.add(partition)
    else if (!this.#ownStartSeen.has(partition)) this.#older.add(instance)
    else if (!this.#older.has(instance)) this.#giveWay(instance, symbol)
  }

  #giveWay(instance: string, symbol: string): never {
    throw new OvertakenError(
      'KAFKA',
      `Another ingestion (${instance}) has started over ${symbol}: this one stops`,
      {
        fix: 'Run one ingestion for a symbol; give each a share of the symbols with SHARD.',
      },
    )
  }
}

/** A start record; null for another record, and for one that cannot be read, which recovery reports. */
function readStart(value: Buffer): Checkpoint | null {
  try {
    const checkpoint = parseCheckpoint(value.toString())
    return checkpoint.kind === 'start' ? checkpoint : null
  } catch {
    return null
  }
}
