import type { FetchedPartition } from '../../src/foundation/kafka/codec/fetch-api.ts'
import { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import type { RecordFetcher } from '../../src/foundation/kafka/kafka-port.ts'
import type { Position, TopicPartition } from '../../src/foundation/kafka/partition.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { LifeClock } from '../support/life-clock.ts'

export interface TopicMessage {
  readonly value: Buffer
  readonly rows: readonly string[]
  readonly leaderEpoch: number
}

const FETCH_MESSAGES = 40

/** One topic in memory that can lose tails, be recreated and get partitions. */
export class MemoryTopic {
  readonly name: string
  id = 1
  /** By partition. */
  logs: TopicMessage[][]
  /** For the group: kept up to date. */
  readonly partitions: TopicPartition[] = []
  isAway = false
  #epoch = 1
  readonly #random: Random

  constructor(name: string, partitions: number, random: Random) {
    this.name = name
    this.#random = random
    this.logs = []
    for (let i = 0; i < partitions; i++) this.addPartition()
  }

  get topicId(): string {
    return `id-${this.id}`
  }

  append(partition: number, value: Buffer, rows: readonly string[]): void {
    this.logs[partition]?.push({ value, rows, leaderEpoch: this.#epoch })
  }

  addPartition(): void {
    this.partitions.push({ topic: this.name, partition: this.logs.length })
    this.logs.push([])
  }

  /** Removes messages from the end of a log; others take their place. */
  truncate(partition: number, count: number): void {
    this.#epoch++
    this.logs[partition]?.splice(-count)
  }

  /** @returns all messages of the old topic */
  recreate(): TopicMessage[] {
    this.id++
    const old = this.logs.flat()
    this.logs = this.logs.map(() => [])
    return old
  }

  open(life: LifeClock): RecordFetcher {
    let known = this.topicId
    const answer = async <Result>(delayMs: number, result: () => Result): Promise<Result> => {
      await life.wait(delayMs)
      if (this.isAway) throw new Error('The broker is away')
      return result()
    }
    const soon = () => this.#random.between(1, 20)
    return {
      connect: () =>
        answer(soon(), () => {
          known = this.topicId
          return new Map([[this.name, { id: known, partitions: this.logs.length }]])
        }),
      leaderOf: () => 1,
      offsetRanges: () =>
        answer(soon(), () =>
          this.logs.map((log, partition) => ({ topic: this.name, partition, start: 0, end: log.length })),
        ),
      fetch: (_node, positions) => {
        const asked = known
        const fetched = positions.map((position) => this.#read(position, asked))
        const isEmpty = fetched.every(({ messages, error }) => messages.length === 0 && error === null)
        return answer(isEmpty ? this.#random.between(2000, 5000) : soon(), () => fetched)
      },
      read: (position) => answer(soon(), () => this.#read(position, known)),
      close: () => Promise.resolve(),
    }
  }

  #read({ partition, offset, leaderEpoch = -1 }: Position, topicId: string): FetchedPartition {
    const log = this.logs[partition] ?? []
    const none = { topic: this.name, topicId, partition, error: null, diverging: null, nextOffset: null }
    const answer = { ...none, nextLeaderEpoch: -1, messages: [], startOffset: 0, endOffset: log.length }
    if (topicId !== this.topicId) return { ...answer, error: 'UNKNOWN_TOPIC_ID' }
    const next = log.findIndex((message) => message.leaderEpoch > leaderEpoch)
    const common = next < 0 ? log.length : next
    if (leaderEpoch >= 0 && common < offset)
      return { ...answer, diverging: { offset: common, leaderEpoch: log[common - 1]?.leaderEpoch ?? 0 } }
    if (offset > log.length) return { ...answer, error: 'OFFSET_OUT_OF_RANGE' }
    const messages = log.slice(offset, offset + FETCH_MESSAGES).map(({ value, leaderEpoch: epoch }, i) => {
      return new FetchedMessage(offset + i, null, [], value, 0, value.length, epoch)
    })
    return messages.length === 0 ? answer : { ...answer, messages, nextOffset: offset + messages.length }
  }
}
