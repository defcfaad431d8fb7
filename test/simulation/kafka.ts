import { FetchedMessage } from '../../src/foundation/kafka/codec/fetched-message.ts'
import type { KafkaPort } from '../../src/foundation/kafka/kafka-port.ts'
import type { FetchedPartition } from '../../src/foundation/kafka/partition-fetcher.ts'
import type { OutgoingRecord } from '../../src/foundation/kafka/record-sender.ts'
import type { TopicMetadata } from '../../src/foundation/kafka/topic-metadata.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import type { LifeClock } from './life-clock.ts'
import type { Random } from './random.ts'

const PARTITIONS = 3

export interface LogRecord {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers: ReadonlyArray<readonly [Buffer, Buffer]>
}

export interface Appended {
  readonly record: OutgoingRecord
  readonly partition: number
  readonly offset: number
  /** The process that produced it. */
  readonly incarnation: number
  /** The producer was told that the send had failed: it may come again. */
  readonly mayRepeat: boolean
}

/** What a planted defect does to a record: how often it is appended. */
export type Copies = (record: OutgoingRecord) => number

/** Kafka in memory: brokers that are away for a while, sends that fail after they were appended, compaction. */
export class SimulatedKafka {
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #logs = new Map<string, Array<Array<LogRecord | null>>>()
  readonly #compacted: string
  readonly #onAppended: (appended: Appended) => void
  readonly #copies: Copies
  #awayUntilMs = 0
  #failNextSend = false

  constructor(
    options: { readonly topics: readonly string[]; readonly compacted: string; readonly copies: Copies },
    clock: VirtualClock,
    random: Random,
    onAppended: (appended: Appended) => void,
  ) {
    this.#clock = clock
    this.#random = random
    this.#compacted = options.compacted
    this.#copies = options.copies
    this.#onAppended = onAppended
    for (const topic of options.topics)
      this.#logs.set(
        topic,
        Array.from({ length: PARTITIONS }, () => []),
      )
  }

  /** No broker answers for so long. */
  goAway(ms: number): void {
    this.#awayUntilMs = Math.max(this.#awayUntilMs, this.#clock.monotonicMs() + ms)
  }

  /** The next send ends in an error that the client calls final, appended or not. */
  failNextSend(): void {
    this.#failNextSend = true
  }

  recover(): void {
    this.#awayUntilMs = 0
    this.#failNextSend = false
  }

  get #awayMs(): number {
    return Math.max(0, this.#awayUntilMs - this.#clock.monotonicMs())
  }

  /** Kafka as one process meets it. */
  access(life: LifeClock, incarnation: number): KafkaPort {
    return {
      requireAccess: (_clientId, { topics }) => this.#answer(life, () => this.#metadata([...topics.keys()])),
      producer: () => this.#producer(life, incarnation),
      fetcher: (_clientId, topics) => this.#fetcher(life, topics),
    }
  }

  #producer(life: LifeClock, incarnation: number): ReturnType<KafkaPort['producer']> {
    let closed = false
    return {
      topics: (names) => this.#answer(life, () => this.#metadata(names)),
      send: (records, options) =>
        new Promise((resolve, reject) => {
          let fails = this.#failNextSend
          this.#failNextSend = false
          const attempt = () => {
            if (closed) return reject(new Error('The producer was closed'))
            const awayMs = this.#awayMs
            // A request that waits for the brokers dies with its process; one on the wire arrives.
            if (awayMs > 0) return void life.schedule(awayMs + this.#random.between(50, 1000), attempt)
            const appends = !fails || this.#random.chance(0.5)
            const failed = fails
            fails = false
            this.#clock.schedule(this.#random.between(0.5, 10), () => {
              const offsets = appends ? this.#append(records, incarnation, failed) : []
              life.schedule(this.#random.between(0.5, 10), () => {
                // The broker has forgotten this producer: the same records come with another producer id.
                if (failed) return void life.schedule(this.#random.between(50, 500), attempt)
                for (const base of offsets) {
                  const acknowledged = records.filter(
                    ({ topic, partition }) => topic === base.topic && partition === base.partition,
                  )
                  options?.onAcknowledged?.(base, acknowledged)
                }
                resolve()
              })
            })
          }
          attempt()
        }),
      close: async () => {
        closed = true
      },
    }
  }

  #fetcher(life: LifeClock, topics: readonly string[]): ReturnType<KafkaPort['fetcher']> {
    return {
      connect: () => this.#answer(life, () => this.#metadata(topics)),
      leaderOf: () => 0,
      offsetRanges: () =>
        this.#answer(life, () =>
          topics.flatMap((topic) =>
            this.#partitionsOf(topic).map(({ length }, partition) => ({
              topic,
              partition,
              start: 0,
              end: length,
            })),
          ),
        ),
      fetch: (_node, positions) =>
        this.#answer(life, () =>
          positions.map(({ topic, partition, offset }) => this.#read(topic, partition, offset)),
        ),
      close: async () => {},
    }
  }

  #answer<Result>(life: LifeClock, answer: () => Result): Promise<Result> {
    return new Promise((resolve, reject) => {
      life.schedule(this.#random.between(0.5, 5), () => {
        if (this.#awayMs > 0) life.schedule(1000, () => reject(new Error('No broker answers')))
        else resolve(answer())
      })
    })
  }

  #metadata(names: readonly string[]): Map<string, TopicMetadata> {
    return new Map(names.map((name) => [name, { id: name, partitions: PARTITIONS }]))
  }

  #partitionsOf(topic: string): Array<Array<LogRecord | null>> {
    const partitions = this.#logs.get(topic)
    if (partitions === undefined) throw new Error(`No topic ${topic}`)
    return partitions
  }

  #append(records: readonly OutgoingRecord[], incarnation: number, mayRepeat: boolean) {
    const bases = new Map<string, { topic: string; partition: number; offset: number }>()
    for (const record of records) {
      const { topic, partition, key, value, headers } = record
      const log = this.#partitionsOf(topic)[partition]
      if (log === undefined) throw new Error(`No partition ${partition} of ${topic}`)
      const place = `${topic}:${partition}`
      if (!bases.has(place)) bases.set(place, { topic, partition, offset: log.length })
      for (let copies = this.#copies(record); copies > 0; copies--) {
        const offset = log.push({ key, value, headers: [...headers] }) - 1
        this.#onAppended({ record, partition, offset, incarnation, mayRepeat })
      }
      if (topic === this.#compacted) compact(log, key)
    }
    return [...bases.values()]
  }

  #read(topic: string, partition: number, offset: number): FetchedPartition {
    const log = this.#partitionsOf(topic)[partition] ?? []
    const end = Math.min(log.length, offset + 2000)
    const messages: FetchedMessage[] = []
    for (let at = offset; at < end; at++) {
      const record = log[at]
      if (record != null) messages.push(asFetched(at, record))
    }
    return {
      topic,
      partition,
      error: null,
      startOffset: 0,
      endOffset: log.length,
      nextOffset: end > offset ? end : null,
      messages,
    }
  }
}

/** How many records at the end of a partition compaction leaves alone. */
const UNCOMPACTED = 20

/** Removes what has been superseded, but for the newest records, as the broker does it sooner or later. */
function compact(log: Array<LogRecord | null>, key: Buffer | null): void {
  for (let at = log.length - 1 - UNCOMPACTED; at >= 0 && at > log.length - 1 - 10 * UNCOMPACTED; at--) {
    const record = log[at]
    if (record != null && key !== null && record.key?.equals(key) === true) {
      log[at] = null
      return
    }
  }
}

function asFetched(offset: number, { key, value, headers }: LogRecord): FetchedMessage {
  const named = headers.map(([name, text]): [Buffer, Buffer] => [name, text])
  return new FetchedMessage(offset, key, named, value)
}
