import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { compressionObstacle, compressNextChunk } from '../src/foundation/store/chunks.ts'
import { databaseKinds, databaseOfSuite } from './support/database.ts'
import { createTestTopics } from './support/kafka.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess } from './support/services.ts'

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    const on = databaseOfSuite('migrated', name)
    beforeEach(async () => {
      await on.database.query('TRUNCATE trades, book_ticker')
    })
    /** Inserts a trade per number n, with n as id, at the time that the SQL gives for it. */
    const insertTrades = (time: string, first: number, last: number) =>
      on.database.query(
        `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
         SELECT ${time}, 'BTCUSDT', 'trade', n, 1, 1, true, now() FROM generate_series(${first}, ${last}) AS n`,
      )
    const plan = async (sql: string) => {
      const { rows } = await on.database.query<{ 'QUERY PLAN': string }>(`EXPLAIN ${sql}`)
      return rows.map((row) => row['QUERY PLAN']).join('\n')
    }

    test('a candle has the right first and last trade of one millisecond, also across epochs, and counts no volume twice', async () => {
      await on.database.query(
        `INSERT INTO trades (trade_time, symbol, event_type, epoch, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
         SELECT time::timestamptz, 'BTCUSDT', type, epoch, id, price, quantity, maker, now() FROM (VALUES
           ('2026-01-01 10:00:00.000', 'trade', 0, 9007199254740990, 100.00000001, 1, true),
           ('2026-01-01 10:00:00.000', 'trade', 0, 9007199254740989, 99, 2, false),
           ('2026-01-01 10:00:59.999', 'trade', 1, 5, 70.5, 0.00000001, true),
           ('2026-01-01 10:00:59.999', 'trade', 1, 6, 80, 3, false),
           ('2026-01-01 10:00:59.999', 'aggTrade', 1, 1, 500, 3, false),
           ('2026-01-01 10:01:00.000', 'trade', 1, 7, 90, 1, true)) AS t (time, type, epoch, id, price, quantity, maker)`,
      )
      const { rows } = await on.database.query(
        `SELECT bucket, open::text, high::text, low::text, close::text, volume::text, trim_scale(quote_volume)::text AS quote,
           trades::int, taker_buy_volume::text AS bought
         FROM candles('BTCUSDT', '1 minute', '2026-01-01 10:00', '2026-01-01 10:02') ORDER BY bucket`,
      )
      assert.deepEqual(rows, [
        {
          bucket: new Date('2026-01-01T10:00:00Z'),
          ...{ open: '99.00000000', high: '100.00000001', low: '70.50000000', close: '80.00000000' },
          ...{ volume: '6.00000001', quote: '538.000000715', trades: 4, bought: '5.00000000' },
        },
        {
          bucket: new Date('2026-01-01T10:01:00Z'),
          ...{ open: '90.00000000', high: '90.00000000', low: '90.00000000', close: '90.00000000' },
          ...{ volume: '1.00000000', quote: '90', trades: 1, bought: '0' },
        },
      ])
    })

    test('candles accept bounds of every type, and a bucket can be compared with a date', async () => {
      await insertTrades("current_date + (n - 1) * interval '1 hour'", 0, 25)
      const count = async (sql: string, values: readonly unknown[] = []) =>
        (await on.database.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${sql}`, values)).rows[0]?.n
      const { rows } = await on.database.query<{ day: string; next: string }>(
        'SELECT current_date::text AS day, (current_date + 1)::text AS next',
      )
      const [{ day = '', next = '' } = {}] = rows
      for (const [from, to] of [
        ['current_date', 'current_date + 1'],
        [`date '${day}'`, `date '${next}'`],
        ['current_date::timestamp', "current_date::timestamp + interval '1 day'"],
        ['current_date::timestamptz', "current_date::timestamptz + interval '1 day'"],
        [`'${day}'`, `'${next}'`],
      ])
        assert.equal(await count(`candles('BTCUSDT', '1 hour', ${from}, ${to})`), 24, from)
      for (const cast of ['', '::date', '::timestamp', '::timestamptz']) {
        const sql = `candles('BTCUSDT', '1 hour', $1${cast}, $2${cast})`
        assert.equal(await count(sql, [day, next]), 24, `parameters${cast}`)
        const dates = [new Date(`${day}T00:00:00Z`), new Date(`${next}T00:00:00Z`)]
        assert.equal(await count(sql, dates), 24, `Date parameters${cast}`)
      }
      const buckets = `candles('BTCUSDT', '1 hour', '2020-01-01', '2100-01-01') WHERE bucket`
      assert.equal(await count(`${buckets} >= current_date AND bucket < current_date + 1`), 24)
      assert.equal(await count(`${buckets} < date '2100-01-01'`), 26)
      assert.equal(await count(`${buckets} < $1::date`, ['2100-01-01']), 26)
    })

    test("the query of a day's candles is inlined, and reads one chunk by the index", async () => {
      await insertTrades("timestamptz '2026-01-01' + n * interval '1 day'", 0, 9)
      for (const [from, to] of [
        ["'2026-01-04'", "'2026-01-05'"],
        ["date '2026-01-04'", "date '2026-01-05'"],
      ]) {
        const day = await plan(`SELECT * FROM candles('BTCUSDT', '1 minute', ${from}, ${to})`)
        assert.doesNotMatch(day, /Function Scan/)
        assert.equal(new Set(day.match(/_hyper_\d+_\d+_chunk /g)).size, 1, day)
      }
    })

    test('trades of a symbol by time are read only by the index, and the last ones without a sort', async () => {
      await insertTrades("timestamptz '2026-01-01' + n * interval '1 second'", 0, 9999)
      await on.database.query('ANALYZE trades')
      const minute = await plan(
        "(ANALYZE, TIMING off) SELECT * FROM raw_trades WHERE symbol = 'BTCUSDT' AND trade_time >= '2026-01-01 01:00' AND trade_time < '2026-01-01 01:01'",
      )
      assert.match(minute, /trades_identity.*actual rows=60(\.00)? loops=1/)
      assert.doesNotMatch(minute, /Filter/)
      const last = await plan(
        "(ANALYZE, TIMING off) SELECT * FROM raw_trades WHERE symbol = 'BTCUSDT' ORDER BY trade_time DESC, trade_id DESC LIMIT 5",
      )
      assert.match(last, /Backward using .*trades_identity.*actual rows=5(\.00)? loops=1/)
      assert.doesNotMatch(last, /Sort Method/)
    })

    test('a server without compression gives the reason: migrate prints it, and the consumer still works', async () => {
      const expected = {
        native: /needs the Timescale licence, but this server runs with timescaledb\.license = apache/,
        embedded: /the embedded database cannot be reopened after it/,
      }[name]
      assert.match((await compressionObstacle(on.database)) ?? '', expected)
      await using command = startTapeline(['migrate'], { env: { DATABASE_URL: on.url } })
      await command.assertExit(0)
      assert.match(command.output(), /Compression \(COMPRESS_AFTER_DAYS\): not available, /)
      assert.match(command.output(), expected)
      await using topics = await createTestTopics({ prefix: 'compression' })
      const env = { ...topics.env, DATABASE_URL: on.url, COMPRESS_AFTER_DAYS: '1', RETENTION_DAYS: '900' }
      await using consumer = await startConsumerProcess(env)
      await consumer.command.waitForLine(expected, 30_000)
      await consumer.ready()
      await consumer.stop()
    })

    // The only server here with that licence. It cannot be reopened afterwards, and is not.
    test('compressed days keep every row, and recognise redelivered ones', {
      skip: name === 'native' && 'the Apache licence has no compression',
    }, async () => {
      const insert = `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
        SELECT timestamptz '2026-01-01' + n * interval '1 hour', 'BTCUSDT', type, n, 1.00000001, 1, true, now()
        FROM generate_series(0, 119) AS n, unnest('{trade,aggTrade}'::text[]) AS type ON CONFLICT DO NOTHING`
      await on.database.query(insert)
      await on.database.query(
        `INSERT INTO book_ticker SELECT timestamptz '2026-01-01' + n * interval '1 hour', 'BTCUSDT', n, 1, 1, 2, 1 FROM generate_series(0, 119) AS n`,
      )
      const rows = async () =>
        (await on.database.query('SELECT * FROM trades ORDER BY trade_id, event_type')).rows
      const before = await rows()
      const done: string[] = []
      for (;;) {
        const chunk = await compressNextChunk(on.database, 3)
        if (chunk === null) break
        done.push(`${chunk.table} ${chunk.end.toISOString().slice(0, 10)}`)
        assert.ok(done.length <= 4, done.join())
      }
      const expected = ['2026-01-02', '2026-01-03'].flatMap((day) => [`book_ticker ${day}`, `trades ${day}`])
      assert.deepEqual(done, expected)
      assert.deepEqual(await rows(), before)
      assert.equal((await on.database.query(insert)).rowCount, 0, 'a redelivery adds nothing')
    })
  })
}
