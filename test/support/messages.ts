import assert from 'node:assert/strict'
import { markOf } from '../../src/foundation/kafka/exchange-identity-mark.ts'
import { partitionOf } from '../../src/foundation/kafka/partition.ts'
import { PartitionFetcher } from '../../src/foundation/kafka/partition-fetcher.ts'
import { GAP, type Gap } from '../../src/foundation/market/gap.ts'
import { RECORDING_KEY } from '../../src/foundation/market/recording.ts'
import type { TimeUnit } from '../../src/foundation/market/time-unit.ts'
import { brokers } from './kafka.ts'
import { connectionTo, outgoing, sendRecords, withAdmin } from './kafka-clients.ts'

/** A message in Kafka. */
export interface StoredMessage {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly key: string | null
  readonly value: Buffer | null
  readonly headers: Readonly<Record<string, string>>
}

/** The ids in topics of trades or quotes, in their order, by symbol and type: `BTCUSDT trade`. */
export async function idsByStream(...topics: readonly string[]): Promise<Map<string, number[]>> {
  const ids = new Map<string, number[]>()
  for (const topic of topics)
    for await (const { value } of messagesOf(topic, brokers())) {
      const { e = 'bookTicker', s, t, a, u } = JSON.parse(String(value))
      const name = `${s} ${e}`
      const id: number = u ?? t ?? a
      const known = ids.get(name)
      if (known === undefined) ids.set(name, [id])
      else known.push(id)
    }
  return ids
}

/** Fails unless there are ids, and none between the first and the last is missing. @returns each once */
export function assertNoneMissing(ids: readonly number[] = [], what = ''): number[] {
  const distinct = [...new Set(ids)].sort((one, other) => one - other)
  const [first, last] = [distinct[0] ?? Number.NaN, distinct.at(-1) ?? Number.NaN]
  assert.equal(distinct.length, last - first + 1, `${what} has missing ids`)
  return distinct
}

/** The rows in the ledger topic, without ingestion's announcements. */
export async function readLedger(topic: string): Promise<Gap[]> {
  const rows = (await readTopic(topic)).filter(({ key }) => key !== RECORDING_KEY)
  return rows.map(({ value }) => GAP.parse(JSON.parse(String(value))))
}

/** Ingestion's value of the key `!source` in the checkpoints topic. */
export function markValue(
  source: string,
  env: Readonly<Record<string, string>>,
  timeUnit: TimeUnit = 'millisecond',
): Buffer {
  const name = (topic: string) => env[`KAFKA_${topic}_TOPIC`] ?? ''
  const topics = {
    trades: name('TRADES'),
    bookTicker: name('BOOK_TICKER'),
    depth: name('DEPTH'),
    gaps: name('GAPS'),
    checkpoints: name('CHECKPOINTS'),
    deadLetters: name('DEAD_LETTERS'),
  }
  return Buffer.from(JSON.stringify(markOf({ source, timeUnit }, topics)))
}

/** Produces values with a key to the partition that Tapeline would choose, in order. */
export async function produce(
  topic: string,
  key: string,
  values: ReadonlyArray<Buffer | null>,
  options: { partitions?: number; headers?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  const headers = new Map(
    Object.entries(options.headers ?? {}).map(([name, text]) => [Buffer.from(name), Buffer.from(text)]),
  )
  const partition = partitionOf(key, options.partitions ?? 3)
  await sendRecords(
    connectionTo(brokers()),
    values.map((value) => outgoing({ topic, partition, key: Buffer.from(key), value, headers })),
  )
}

/** Every message of a topic, by partition and offset. */
export async function readTopic(
  topic: string,
  from: readonly string[] = brokers(),
): Promise<StoredMessage[]> {
  return await Array.fromAsync(messagesOf(topic, from))
}

/** The same one by one, for topics that do not fit into memory. */
export async function* messagesOf(topic: string, from: readonly string[]): AsyncGenerator<StoredMessage> {
  const fetcher = new PartitionFetcher(connectionTo(from), 'tapeline-test-read', [topic])
  try {
    await fetcher.connect()
    for (const { partition, start, end } of await fetcher.offsetRanges()) {
      for (let offset = start; offset < end; ) {
        const node = fetcher.leaderOf(topic, partition) ?? 0
        const limits = { maxWaitMs: 200, minBytes: 1, maxBytes: 8 << 20 }
        const [fetched] = await fetcher.fetch(node, [{ topic, partition, offset }], limits)
        for (const message of fetched?.messages ?? []) {
          if (message.offset < offset) continue
          const headers = Object.fromEntries(
            message.headers.map(([name, text]) => [String(name), String(text)]),
          )
          const key = message.key?.toString() ?? null
          yield { topic, partition, offset: message.offset, key, value: message.value, headers }
        }
        offset = fetched?.nextOffset ?? offset
      }
    }
  } finally {
    await fetcher.close()
  }
}

/** Makes a partition begin at `offset`, like retention. */
export async function deleteRecords(topic: string, partition: number, offset: number): Promise<void> {
  await withAdmin(brokers(), (admin) =>
    admin.deleteRecords({
      topics: [{ name: topic, partitions: [{ partition, offset: BigInt(offset) }] }],
    }),
  )
}

/** Adds partitions to a topic. */
export async function addPartitions(topic: string, count: number): Promise<void> {
  await withAdmin(brokers(), (admin) => admin.createPartitions({ topics: [{ name: topic, count }] }))
}
