import type { FetchedPartition } from '../../src/foundation/kafka/codec/fetch-api.ts'
import type { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import type { RecordFetcher } from '../../src/foundation/kafka/kafka-port.ts'
import type { Position } from '../../src/foundation/kafka/partition.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { LifeClock } from '../support/life-clock.ts'
import { messageAt } from '../support/records.ts'

/** The expected fate of a message. */
export interface Meant {
  /** The row's key in the database; null for messages that must not become a row. */
  readonly row: string | null
  readonly fate: 'stored' | 'undecodable' | 'refused' | 'letter'
  /** Its reference in a ledger row; null without one. */
  readonly event: {
    readonly symbol: string
    readonly type: 'trade' | 'bookTicker'
    readonly id: number
    readonly timeMs: number
  } | null
}

export interface LogMessage {
  readonly record: FetchedMessage
  readonly meant: Meant
}

export interface MemoryPartition {
  readonly topic: string
  readonly partition: number
  readonly messages: LogMessage[]
  /** The oldest offset that has not expired. */
  start: number
  /** Why it cannot be read now: it has no leader, or the broker refuses it with this error. */
  ailment: 'no leader' | 'NOT_LEADER_OR_FOLLOWER' | null
}

const PARTITIONS = 3
const FETCH_MESSAGES = 150

/** A Kafka in memory: topics with three partitions each, and whether it answers. */
export class MemoryLog {
  readonly topics: readonly string[]
  readonly partitions: readonly MemoryPartition[]
  isAway = false
  /** Called when a client requests the topics. */
  onConnect: () => void = () => {}
  readonly #random: Random

  constructor(topics: readonly string[], random: Random) {
    this.topics = topics
    this.#random = random
    this.partitions = topics.flatMap((topic) =>
      Array.from({ length: PARTITIONS }, (_, partition) => {
        return { topic, partition, messages: [], start: 0, ailment: null }
      }),
    )
  }

  topicId(topic: string): string {
    return `00000000-0000-0000-0000-00000000000${this.topics.indexOf(topic)}`
  }

  partition(topic: string, partition: number): MemoryPartition {
    const found = this.partitions.find((one) => one.topic === topic && one.partition === partition)
    if (found === undefined) throw new RangeError(`Topic ${topic} has no partition ${partition}`)
    return found
  }

  append(topic: string, partition: number, message: LogMessage): void {
    this.partition(topic, partition).messages.push(message)
  }

  /** A client of a process, which ends with it. */
  open(life: LifeClock): RecordFetcher {
    const metadata = new Map(
      this.topics.map((topic) => [topic, { id: this.topicId(topic), partitions: PARTITIONS }]),
    )
    const answer = async <Result>(delayMs: number, result: () => Result): Promise<Result> => {
      await life.wait(delayMs)
      if (this.isAway) throw new Error('The broker is away')
      return result()
    }
    return {
      connect: () => {
        this.onConnect()
        return answer(this.#random.between(1, 20), () => metadata)
      },
      leaderOf: (topic, partition) => (this.partition(topic, partition).ailment === 'no leader' ? -1 : 1),
      offsetRanges: () => {
        const ranges = () =>
          this.partitions.map(({ topic, partition, start, messages }) => {
            return { topic, partition, start, end: messages.length }
          })
        return answer(this.#random.between(1, 20), ranges)
      },
      fetch: (_node, positions, { maxWaitMs }) => {
        // The broker's state at the request arrives a while later, whatever has happened since.
        const fetched = positions.map((position) => this.#read(position))
        const isFull = fetched.some(
          ({ messages, error }) => messages.length >= FETCH_MESSAGES || error !== null,
        )
        const delayMs = isFull ? this.#random.between(1, 60) : this.#random.between(maxWaitMs / 2, maxWaitMs)
        return answer(delayMs, () => fetched)
      },
      read: (position) => answer(this.#random.between(1, 20), () => this.#read(position)),
      close: () => Promise.resolve(),
    }
  }

  #read({ topic, partition, offset }: Position): FetchedPartition {
    const { start, messages: log, ailment } = this.partition(topic, partition)
    const topicId = this.topicId(topic)
    const none = {
      topic,
      topicId,
      partition,
      nextOffset: null,
      nextLeaderEpoch: -1,
      diverging: null,
      messages: [],
    }
    if (ailment !== null) return { ...none, error: 'NOT_LEADER_OR_FOLLOWER', startOffset: -1, endOffset: -1 }
    const answer = { ...none, error: null, startOffset: start, endOffset: log.length }
    if (offset < start || offset > log.length) return { ...answer, error: 'OFFSET_OUT_OF_RANGE' }
    // A batch of the log may begin before the requested offset.
    const from = Math.max(start, offset - this.#random.whole(0, 3 - 1))
    const messages = log
      .slice(from, offset + FETCH_MESSAGES)
      .map(({ record }, i) => messageAt(from + i, record))
    return messages.length === 0 ? answer : { ...answer, nextOffset: from + messages.length, messages }
  }
}
