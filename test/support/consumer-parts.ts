import assert from 'node:assert/strict'
import { migrate } from '../../src/foundation/store/migrate.ts'
import { openPostgres } from '../../src/foundation/store/postgres.ts'
import type { ConsumerStatus } from '../../src/foundation/telemetry/status.ts'
import { createTestDatabase } from './database.ts'
import { createTestTopics } from './kafka.ts'
import { tradeValue } from './records.ts'
import { saidByServices, startConsumerProcess } from './services.ts'
import { until } from './wait-for.ts'

export type ConsumerParts = Awaited<ReturnType<typeof createConsumerParts>>

/**
 * The topics and database of one test, and the consumer's settings for them.
 *
 * @param tables whether to create the tables, as `tapeline migrate` does
 * @param onServer an empty database to use instead of a new one; it is not dropped
 * @param partitions of each topic
 */
export async function createConsumerParts(
  tables: 'migrated' | 'empty' = 'empty',
  onServer?: { readonly url: string },
  partitions = 3,
) {
  const topics = await createTestTopics({ prefix: 'consumer', partitions })
  const server =
    onServer === undefined ? await createTestDatabase() : { url: onServer.url, drop: async () => {} }
  const database = openPostgres({ url: server.url, poolMin: 0, poolMax: 2, applicationName: 'test' })
  if (tables === 'migrated') await migrate(database)
  /** The number that a query returns. */
  const count = async (sql: string) => {
    const { rows } = await database.query<{ n: number }>(`SELECT (${sql})::int AS n`)
    return rows[0]?.n ?? -1
  }
  /** Reads from the earliest offset, flushes often and fails fast. */
  const env: Readonly<Record<string, string>> = {
    ...topics.env,
    DATABASE_URL: server.url,
    AUTO_OFFSET_RESET: 'earliest',
    FLUSH_INTERVAL_MS: '200',
    KAFKA_SESSION_TIMEOUT_MS: '6000',
    BACKOFF_INITIAL_MS: '100',
    BACKOFF_MAX_MS: '1000',
  }
  /** Waits until `trades` has this many rows. */
  const untilTrades = async (rows: number, timeoutMs = 90_000) => {
    let seen = -1
    const isThere = async () => {
      seen = await count('SELECT count(*) FROM trades')
      return seen >= rows
    }
    await until(`${rows} trades`, isThere, timeoutMs).catch((cause: unknown) => {
      const said = saidByServices()
      throw new Error(`Only ${seen} of ${rows} trades were stored. Output of the services:\n${said}`, {
        cause,
      })
    })
  }
  return {
    topics,
    database,
    databaseUrl: server.url,
    env,
    count,
    untilTrades,
    /** Runs a consumer until `trades` has this many rows. @returns its counters */
    async store(rows: number, settings = env) {
      await using consumer = await startConsumerProcess(settings)
      await untilTrades(rows)
      const { counters } = await consumer.status()
      await consumer.stop()
      return counters
    },
    /** The sum of the stored offsets of a topic's partitions. */
    storedOffset(topic: string) {
      return count(`SELECT sum(next_offset) FROM consumer_offsets WHERE topic = '${topic}'`)
    },
    /** Waits until a query returns this number. */
    async untilRows(sql: string, rows: number) {
      await until(`${rows} of: ${sql}`, async () => (await count(sql)) === rows)
    },
    /** Fails unless the ids of `trades` are these, each once. */
    async assertTradesOnce(first: number, last: number) {
      const { rows } = await database.query(
        'SELECT count(*)::int AS rows, count(DISTINCT trade_id)::int AS ids, min(trade_id)::int AS first, max(trade_id)::int AS last FROM trades',
      )
      assert.deepEqual(rows, [{ rows: last - first + 1, ids: last - first + 1, first, last }])
    },
    async [Symbol.asyncDispose]() {
      await database.close()
      await server.drop()
      await topics.delete()
    },
  }
}

/** Trades with the ids `[from, to)`. */
export function trades(from: number, to: number, symbol = 'BTCUSDT'): Buffer[] {
  return Array.from({ length: to - from }, (_, i) => tradeValue({ s: symbol, t: from + i }))
}

/** Fails unless every consumed message is in exactly one of the counters. */
export function assertConserved({ counters }: ConsumerStatus): void {
  const { consumed, inserted, alreadyThere, deadLettered, discarded, pending } = counters
  const counted = inserted + alreadyThere + deadLettered + discarded + pending
  assert.equal(consumed, counted, JSON.stringify(counters))
}
