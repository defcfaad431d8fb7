import assert from 'node:assert/strict'
import { after, before, beforeEach, describe, test } from 'node:test'
import { startChunkMaintenance } from '../src/consumer/chunk-maintenance.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { dropOldChunks } from '../src/foundation/store/chunks.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { type FailureKind, failureKind } from '../src/foundation/store/failures.ts'
import { sqlStateOf } from '../src/foundation/store/sql-state.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { columns } from './support/columns.ts'
import { databaseKinds, type OpenDatabase, openTestDatabase } from './support/database.ts'
import { ended } from './support/ended.ts'
import { createTestTopics } from './support/kafka.ts'
import { produce } from './support/messages.ts'
import { tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

const DAY_MS = 86_400_000
const SILENT = createLogger('test', 'silent')
const INSERT = `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker,
  ingestion_timestamp)`

/** Midnight UTC, this many days before the current one. */
const midnight = (daysAgo: number) => new Date((Math.floor(Date.now() / DAY_MS) - daysAgo) * DAY_MS)

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    let server: OpenDatabase
    let database: Database
    before(async () => {
      server = await openTestDatabase('migrated', name)
      database = server.database
    })
    after(() => server[Symbol.asyncDispose]())
    beforeEach(async () => {
      await database.query('TRUNCATE trades, book_ticker, meta')
    })

    /** Stores one trade and one quote at the last millisecond of each day, given as days before today. */
    async function fill(...daysAgo: number[]): Promise<void> {
      for (const ago of daysAgo) {
        const values = [new Date(midnight(ago - 1).getTime() - 1).toISOString(), 100 - ago]
        await database.query(`${INSERT} VALUES ($1, 'BTCUSDT', 'trade', $2, 1, 1, true, $1)`, values)
        await database.query("INSERT INTO book_ticker VALUES ($1, 'BTCUSDT', $2, 1, 1, 2, 1)", values)
      }
    }
    const kept = async (table: 'trades' | 'book_ticker') => {
      const id = table === 'trades' ? 'trade_id' : 'update_id'
      const text = `SELECT (100 - ${id})::int AS ago FROM ${table} ORDER BY ${id} DESC`
      return (await database.query<{ ago: number }>(text)).rows.map(({ ago }) => ago)
    }
    const marks = async () => {
      const { rows } = await database.query<{ key: string; value: string }>(
        "SELECT key, value FROM meta WHERE key LIKE 'retention:%'",
      )
      return Object.fromEntries(rows.map(({ key, value }) => [key, value]))
    }
    const needsTwo = { skip: name === 'embedded' && 'it has one backend' }
    const maintain = (afterFailureMs?: number) => {
      const config = { retentionDays: 3, compressAfterDays: null }
      return startChunkMaintenance(database, config, systemClock(), SILENT, null, afterFailureMs)
    }

    test('keeps every row of the retained days, including the partly elapsed one', async () => {
      await fill(0, 1, 2, 3, 4, 5, 9)
      const dropped = await dropOldChunks(database, 3)
      assert.deepEqual(columns(dropped, 'table', 'chunks', 'before'), [
        ['book_ticker', 3, midnight(3)],
        ['trades', 3, midnight(3)],
      ])
      for (const table of ['trades', 'book_ticker'] as const)
        assert.deepEqual(await kept(table), [0, 1, 2, 3], 'three days ago is still within that day')
      assert.deepEqual(await marks(), {
        'retention:trades': midnight(3).toISOString(),
        'retention:book_ticker': midnight(3).toISOString(),
      })
      assert.deepEqual(await dropOldChunks(database, 3), [], 'then nothing is left to drop')
    })

    test('a lagging consumer and an old capture keep their freshly stored rows', async () => {
      await fill(400, 401, 402, 410)
      await dropOldChunks(database, 3)
      // Three days before the end of the newest day.
      assert.deepEqual(await kept('trades'), [400, 401, 402])
      assert.equal((await marks())['retention:trades'], midnight(409).toISOString())
    })

    test('one row with a future time does not age the others', async () => {
      await fill(400, 401, 402, -3000)
      assert.deepEqual(await dropOldChunks(database, 3), [])
    })

    test('a late row of a dropped day is stored, is dropped next time, and moves no mark back', async () => {
      await fill(0, 1, 5, 6)
      await dropOldChunks(database, 2)
      const marked = await marks()
      await fill(6)
      assert.deepEqual(await kept('trades'), [0, 1, 6])
      assert.equal((await dropOldChunks(database, 2)).length, 2)
      assert.deepEqual(await kept('trades'), [0, 1])
      assert.deepEqual(await marks(), marked)
    })

    test('refuses to drop everything', async () => {
      await fill(0, 1)
      for (const days of [0, -1]) await assert.rejects(dropOldChunks(database, days), /must be 1 or more/)
      assert.deepEqual(await kept('trades'), [0, 1])
    })

    test('of several concurrent drops one runs, and the others neither wait nor fail', needsTwo, async () => {
      await fill(0, 5, 6)
      await database.transaction(async (connection) => {
        assert.equal((await dropOldChunks(connection, 2)).length, 2)
        assert.deepEqual(await dropOldChunks(database, 2), [])
      })
      assert.deepEqual(await kept('trades'), [0])
    })

    test(
      'a drop gives up quickly on a chunk locked by a batch, and both succeed in the end',
      needsTwo,
      async () => {
        await fill(0, 5)
        await database.transaction(async (connection) => {
          await connection.query('UPDATE trades SET price = 2 WHERE trade_id = 95')
          await assert.rejects(
            dropOldChunks(database, 2),
            (error) => Reflect.get(Object(error), 'code') === '55P03',
          )
        })
        assert.equal((await dropOldChunks(database, 2)).length, 2)
      },
    )

    test(
      'F1 retries a row that meets the drop of its chunk, and does not stop the consumer',
      needsTwo,
      async () => {
        const kinds = new Map<string, FailureKind>()
        const endMs = performance.now() + 60_000
        const isOver = () => kinds.has('XX000') || performance.now() > endMs
        const note = (error: unknown) => {
          kinds.set(sqlStateOf(error) ?? String(error), failureKind(error))
        }
        const dropping = async () => {
          while (!isOver()) {
            await database
              .query("SELECT drop_chunks('trades', older_than => '2024-06-01'::timestamptz)")
              .catch(note)
          }
        }
        const inserting = async (first: number) => {
          for (let id = first; !isOver(); id += 2) {
            await database
              .query(
                `${INSERT} SELECT '2024-01-01'::timestamptz + day * interval '1 day', 'BTCUSDT', 'trade', $1, 1, 1, true, now()
               FROM generate_series(0, 3) AS day ORDER BY random()`,
                [id],
              )
              .catch(note)
          }
        }
        await Promise.all([dropping(), dropping(), inserting(0), inserting(1)])
        assert.ok(kinds.has('XX000'), `the race did not occur: ${[...kinds.keys()].join()}`)
        for (const [state, kind] of kinds) assert.equal(kind, 'retry', state)
      },
    )

    test('drops many old days in portions that fit the lock table, one transaction each', async () => {
      await database.query(
        `${INSERT} SELECT now() - ago * interval '1 day', 'BTCUSDT', 'trade', 100 - ago, 1, 1, true, now() FROM generate_series(0, 80) AS ago`,
      )
      const portion = await database.transaction(async (connection) => {
        const [dropped] = await dropOldChunks(connection, 3)
        const { rows } = await connection.query<{ n: number }>(
          'SELECT count(*)::int AS n FROM pg_locks WHERE pid = pg_backend_pid()',
        )
        return { dropped, locks: rows[0]?.n ?? 0 }
      })
      assert.equal(portion.dropped?.chunks, 50)
      assert.ok(portion.locks < 1000, `${portion.locks} locks`)
      assert.equal((await marks())['retention:trades'], portion.dropped?.before.toISOString())
      await using maintenance = ended(maintain(), 'stop')
      await until('the other old days to be dropped', async () => (await kept('trades')).length === 4)
      assert.equal(maintenance.problem, '')
    })

    test('a repeatedly failing drop makes the consumer not ready, with a fix, until it succeeds', async () => {
      await fill(0, 5)
      await database.query(
        `CREATE FUNCTION out_of_locks() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'out of shared memory' USING ERRCODE = '53200'; END $$`,
      )
      await database.query(
        'CREATE TRIGGER out_of_locks BEFORE INSERT ON meta FOR EACH ROW EXECUTE FUNCTION out_of_locks()',
      )
      const maintenance = maintain(50)
      try {
        await until('a problem', () => maintenance.problem !== '')
        assert.match(
          maintenance.problem,
          /in \d+ attempts: out of shared memory\. Raise max_locks_per_transaction/,
        )
        await database.query('DROP TRIGGER out_of_locks ON meta')
        await until('no problem', () => maintenance.problem === '')
        assert.deepEqual(await kept('trades'), [0])
      } finally {
        maintenance.stop()
        await database.query('DROP FUNCTION out_of_locks CASCADE')
      }
    })

    test('the consumer drops data older than RETENTION_DAYS at its start, and continues storing', async () => {
      await using topics = await createTestTopics({ prefix: 'retention' })
      await fill(0, 1, 2, 7, 8)
      const settings = { DATABASE_URL: server.url, RETENTION_DAYS: '5', AUTO_OFFSET_RESET: 'earliest' }
      await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [tradeValue({ t: 100, T: Date.now() })])
      await using consumer = await startConsumerProcess({
        ...topics.env,
        ...settings,
        FLUSH_INTERVAL_MS: '200',
      })
      await consumer.command.waitForLine(/Rows past RETENTION_DAYS were dropped/, 60_000)
      await until('three days and the new trade', async () => (await kept('trades')).length === 4)
      await consumer.stop()
      assert.deepEqual(await kept('book_ticker'), [0, 1, 2])
    })
  })
}
