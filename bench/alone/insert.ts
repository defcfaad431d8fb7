import type { Batch } from '../../src/consumer/batch.ts'
import { BatchBuilder } from '../../src/consumer/batch-builder.ts'
import { databaseStore } from '../../src/consumer/database-store.ts'
import type { FetchedPartition } from '../../src/foundation/kafka/codec/fetch-api.ts'
import { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import type { Database } from '../../src/foundation/store/database.ts'
import { openPostgres } from '../../src/foundation/store/postgres.ts'
import { createLogger } from '../../src/foundation/telemetry/log.ts'
import { decodeAll } from './decode.ts'
import { timed } from './timed.ts'

const TOPIC_IDS: Readonly<Record<string, string>> = {
  trades: '00000000-0000-4000-8000-000000000001',
  book_ticker: '00000000-0000-4000-8000-000000000002',
}
const TABLES = ['trades', 'book_ticker'] as const
/** The default `BATCH_SIZE`, and the size that a batch grows to while the consumer lags. */
const SIZES = [500, 5000]

/**
 * Writes prepared batches into an empty database, as the consumer does. For the upper limit it also
 * copies the same rows with `COPY` from a file of the server: same format, but no client, no
 * transactions of this size and no check for existing rows.
 */
export async function insertAll(frames: readonly Buffer[], url: string): Promise<Record<string, number>> {
  const database = openPostgres({
    url,
    poolMin: 0,
    poolMax: 2,
    queryTimeoutMs: 30 * 60_000,
    applicationName: 'tapeline-bench',
  })
  try {
    const figures: Record<string, number> = {}
    const fetched = fetchedFrom(frames)
    for (const size of SIZES) {
      const batches = gather(fetched, size)
      await empty(database)
      const store = databaseStore(database, systemClock(), createLogger('bench', 'silent'))
      await store.establish(() => ({
        positions: starts(fetched),
        toWrite: starts(fetched),
        losses: [],
        notices: [],
      }))
      const written = await timed(frames.length, async () => {
        for (const batch of batches) await store.write(batch)
      })
      figures[`rows/s in batches of ${size}`] = written.perSecond
      figures[`µs in batches of ${size}`] = written.micros
    }
    figures['COPY alone rows/s'] = await copyAll(database, frames.length)
    return figures
  } finally {
    await database.close()
  }
}

/** Groups the messages into fetches of 1,000, one topic after the other. */
export function fetchedFrom(frames: readonly Buffer[]): FetchedPartition[] {
  const partitions = new Map<string, FetchedMessage[][]>()
  const sizes = new Map<string, number>()
  decodeAll(frames, ({ topic, partition, key, value, headers }) => {
    const name = `${topic} ${partition}`
    const chunks = partitions.get(name) ?? [[]]
    partitions.set(name, chunks)
    const offset = sizes.get(name) ?? 0
    sizes.set(name, offset + 1)
    if (chunks.at(-1)?.length === 1000) chunks.push([])
    chunks.at(-1)?.push(new FetchedMessage(offset, key, [...headers], value))
  })
  const longest = Math.max(...[...partitions.values()].map((chunks) => chunks.length))
  const fetches: FetchedPartition[] = []
  for (let i = 0; i < longest; i++) {
    for (const [name, chunks] of partitions) {
      const messages = chunks[i]
      const [topic = '', partition] = name.split(' ')
      const nextOffset = (messages?.at(-1)?.offset ?? 0) + 1
      if (messages !== undefined)
        fetches.push({
          topic,
          topicId: TOPIC_IDS[topic] ?? '',
          partition: Number(partition),
          error: null,
          endOffset: nextOffset,
          startOffset: 0,
          nextOffset,
          nextLeaderEpoch: 0,
          diverging: null,
          messages,
        })
    }
  }
  return fetches
}

function starts(fetched: readonly FetchedPartition[]) {
  const keys = new Map(fetched.map(({ topic, partition }) => [`${topic} ${partition}`, { topic, partition }]))
  return [...keys.values()].map(({ topic, partition }) => ({
    topic,
    topicId: TOPIC_IDS[topic] ?? '',
    partition,
    nextOffset: 0,
    leaderEpoch: -1,
  }))
}

export function gather(fetched: readonly FetchedPartition[], batchSize: number): Batch[] {
  const batchBuilder = new BatchBuilder({
    kindOf: new Map([
      ['trades', 'trades'],
      ['book_ticker', 'bookTicker'],
    ]),
    batchSize,
    flushIntervalMs: 2000,
    maxSealed: 1,
    batchMaxBytes: Number.POSITIVE_INFINITY,
    maxBytes: Number.POSITIVE_INFINITY,
  })
  batchBuilder.assign(starts(fetched))
  const batches: Batch[] = []
  const takeAll = () => {
    for (let batch = batchBuilder.take(0); batch !== null; batch = batchBuilder.take(0)) {
      batches.push(batch)
      batchBuilder.stored(batch)
    }
  }
  for (const one of fetched) {
    batchBuilder.accept(one, 0, 0)
    takeAll()
  }
  batchBuilder.flush()
  takeAll()
  return batches
}

async function empty(database: Database): Promise<void> {
  await database.query('TRUNCATE trades, book_ticker, consumer_offsets')
}

async function copyAll(database: Database, expected: number): Promise<number> {
  const { rows } = await database.query<{ folder: string }>(
    `SELECT current_setting('data_directory') AS folder`,
  )
  const file = (table: string) => `${rows[0]?.folder}/bench-${table}.copy`
  for (const table of TABLES)
    await database.query(`COPY (SELECT * FROM ${table}) TO '${file(table)}' (FORMAT binary)`)
  await empty(database)
  const copied = await timed(expected, async () => {
    for (const table of TABLES) await database.query(`COPY ${table} FROM '${file(table)}' (FORMAT binary)`)
  })
  const counted = await database.query<{ rows: number }>(
    'SELECT ((SELECT count(*) FROM trades) + (SELECT count(*) FROM book_ticker))::float8 AS rows',
  )
  if (counted.rows[0]?.rows !== expected)
    throw new Error(`COPY brought ${counted.rows[0]?.rows} of ${expected} rows`)
  return copied.perSecond
}
