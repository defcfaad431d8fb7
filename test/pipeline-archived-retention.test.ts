import assert from 'node:assert/strict'
import { appendFile, cp, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { pino } from 'pino'
import { Announcer } from '../src/archive/announcer.ts'
import { compact } from '../src/archive/compaction.ts'
import { duckDbCompaction } from '../src/archive/day-merge.ts'
import { archivedRetention } from '../src/consumer/archived-retention.ts'
import { confirmationRecord, readAnnounced } from '../src/foundation/archive/archived-days.ts'
import { createDayList, dayListKey, newestDayList } from '../src/foundation/archive/day-list.ts'
import { openDuckDb, quoted } from '../src/foundation/archive/duckdb.ts'
import { openFolderStore } from '../src/foundation/archive/folder-store.ts'
import { localFiles } from '../src/foundation/archive/local-files.ts'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { RecordSender } from '../src/foundation/kafka/record-sender.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import type { Queryable } from '../src/foundation/store/database.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { isCaughtUp } from '../src/foundation/telemetry/status.ts'
import { createConsumerParts } from './support/consumer-parts.ts'
import { brokers, createTopics, deleteTopic } from './support/kafka.ts'
import { connectionTo } from './support/kafka-clients.ts'
import { markValue, produce } from './support/messages.ts'
import { aggTradeValue, bookTickerValue, eventValue, tradeValue } from './support/records.ts'
import { startArchiveProcess, startConsumerProcess, untilCaughtUp } from './support/services.ts'
import { until } from './support/wait-for.ts'

const DAY_MS = 86_400_000
const KEEP_DAYS = 5
/** Says nothing. */
const SILENT = createLogger('test', 'silent')
/** Two days that are past retention, and today. */
const OLD = [30, 20].map((ago) => (Math.floor(Date.now() / DAY_MS) - ago) * DAY_MS)
const [FIRST = 0, SECOND = 0] = OLD
const date = (ms: number) => new Date(ms).toISOString().slice(0, 10)

/** Both stores with the same rows, and their services, which run when a test asks for it. */
async function startScene() {
  const parts = await createConsumerParts()
  const folder = await mkdtemp(join(tmpdir(), 'tapeline-retention-'))
  const topic = `${parts.topics.prefix}.archived_days`
  await createTopics([topic], 1)
  const env = {
    ...parts.env,
    KAFKA_ARCHIVED_DAYS_TOPIC: topic,
    KAFKA_ARCHIVE_GROUP_ID: `${parts.env.KAFKA_GROUP_ID}-archive`,
    ...{ ARCHIVE_URL: join(folder, 'archive'), ARCHIVE_FLUSH_INTERVAL_MS: '200', FLUSH_INTERVAL_MS: '100' },
    ...{ AUTO_OFFSET_RESET: 'earliest', RETENTION_DAYS: String(KEEP_DAYS), RETENTION_ARCHIVED_ONLY: 'true' },
  }
  const {
    KAFKA_TRADES_TOPIC: trades,
    KAFKA_BOOK_TICKER_TOPIC: quotes,
    KAFKA_DEPTH_TOPIC: depth,
  } = parts.topics.env
  await produce(parts.topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('binance', parts.topics.env)])
  const ids = [1, 2, 3, 4, 5]
  for (const symbol of ['BTCUSDT', 'ETHUSDT']) {
    for (const day of [...OLD, Date.now()]) {
      const at = { s: symbol, ...received(day) }
      await produce(
        trades,
        symbol,
        ids.flatMap((id) => [
          tradeValue({ ...at, t: day / 1000 + id, T: day + id, E: day + id + 1, p: `${id}.5` }),
          aggTradeValue({ ...at, a: day / 1000 + id, T: day + id, E: day + id + 1 }),
        ]),
      )
      await produce(
        quotes,
        symbol,
        ids.map((u) => bookTickerValue({ ...at, u, ...received(day, u) })),
      )
    }
  }
  const kafka = connectionTo(brokers())
  const store = openFolderStore(env.ARCHIVE_URL)
  await store.prepare()
  const engine = await openDuckDb({ memoryBytes: 256 << 20, tempFolder: join(folder, 'temp'), threads: 1 })
  const duckDb = await engine.connect()
  const ports = { store, duckDb, clock: systemClock() }
  const retention = archivedRetention(kafka, topic, { clock: systemClock(), log: SILENT })
  const scene = {
    env,
    folder,
    ...{ store, duckDb, kafka, topic, trades, depth, retention },
    database: parts.database,
    /** Stores what Kafka has in the tables. */
    async consume() {
      await using consumer = await startConsumerProcess({
        ...env,
        RETENTION_ARCHIVED_ONLY: 'false',
        RETENTION_DAYS: '',
      })
      await consumer.ready()
      await untilCaughtUp(consumer)
      await consumer.stop()
    },
    /** Stores what Kafka has in segments of the archive. */
    async archive() {
      await using archive = await startArchiveProcess({
        ...env,
        RETENTION_ARCHIVED_ONLY: 'false',
        RETENTION_DAYS: '',
      })
      await archive.ready()
      const sinceMs = performance.now()
      await archive.until(
        'every message to be archived',
        ({ partitions, pending }) =>
          pending === 0 && partitions.length > 0 && isCaughtUp(partitions, performance.now() - sinceMs),
      )
      await archive.stop()
    },
    /** What the service does every hour. */
    async publish() {
      const announcer = new Announcer({ kafka, topic, retentionDays: KEEP_DAYS }, ports)
      const ends = await announcer.readEnds()
      await compact(duckDbCompaction(store, duckDb, ports.clock), (day) => Date.parse(day) < SECOND + DAY_MS)
      await announcer.announce(ends)
    },
    /** The same without publishing days. */
    async announce() {
      const announcer = new Announcer({ kafka, topic, retentionDays: KEEP_DAYS }, ports)
      await announcer.announce(await announcer.readEnds())
    },
    /** What a consumer does every hour. @returns what stays, and why */
    async retain(by = retention) {
      await by.drop((_, work) => parts.database.transaction(work), KEEP_DAYS)
      return by.kept
    },
    /** Rows per old day, in both tables. */
    rows(): Promise<Record<string, number>> {
      return rowsOf(parts.database)
    },
    async [Symbol.asyncDispose]() {
      engine.close()
      await parts[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
  return scene
}

const received = (day: number, id = 1) => {
  const ms = day + id
  return { ingestion_timestamp: new Date(ms).toISOString(), ingestion_timestamp_us: ms * 1000 }
}

type Scene = Awaited<ReturnType<typeof startScene>>

async function rowsOf(database: Queryable): Promise<Record<string, number>> {
  const { rows } = await database.query<{ day: string; n: number }>(
    `SELECT name || ' ' || (time AT TIME ZONE 'UTC')::date AS day, count(*)::int AS n
     FROM (SELECT 'trades' AS name, trade_time AS time FROM trades UNION ALL SELECT 'book_ticker', ingestion_timestamp FROM book_ticker) AS one
     WHERE time < now() - interval '5 days' GROUP BY 1 ORDER BY 1`,
  )
  return Object.fromEntries(rows.map(({ day, n }) => [day, n]))
}

/** A retention as after a start of the consumer, and what it logs. */
function startRetention({ kafka, topic }: Scene) {
  const lines: string[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) })
  return { retention: archivedRetention(kafka, topic, { clock: systemClock(), log }), lines }
}

/**
 * Publishes a list of a day with other rows.
 *
 * @param rows a query on `files`
 * @param added to the number of the list; 0: in place of the newest
 */
async function alterArchive(
  { store, duckDb, folder }: Scene,
  table: string,
  ms: number,
  rows: string,
  added = 1,
) {
  const last = (await newestDayList(store, table, date(ms))) ?? assert.fail(`${table} is not published`)
  const key = `${table}/date=${last.date}/${last.number}-altered.parquet`
  const path = join(folder, 'archive', key)
  const files = last.files.map((file) => quoted(join(folder, 'archive', file.key))).join()
  await duckDb.run(
    `COPY (WITH files AS (FROM read_parquet([${files}], hive_partitioning = false)) ${rows}) TO ${quoted(path)} (FORMAT parquet)`,
  )
  const [count] = await duckDb.rows<{ n: bigint }>(`SELECT count(*) AS n FROM read_parquet(${quoted(path)})`)
  const file = {
    key,
    rows: Number(count?.n),
    ...(await localFiles.hash(path)),
    firstSymbol: 'BTCUSDT',
    lastSymbol: 'ETHUSDT',
  }
  if (added === 0) await store.remove(dayListKey(last))
  const list = { ...last, number: last.number + added, publishedAt: last.publishedAt + 1, files: [file] }
  assert.ok(await createDayList(store, list))
}

const NONE = { trades: 0, book_ticker: 0, depth_updates: 0, depth_snapshots: 0 }
const ALL = {
  ...{ [`book_ticker ${date(FIRST)}`]: 10, [`book_ticker ${date(SECOND)}`]: 10 },
  ...{ [`trades ${date(FIRST)}`]: 20, [`trades ${date(SECOND)}`]: 20 },
}
const late = (id: number) =>
  tradeValue({ s: 'BTCUSDT', t: id, T: FIRST + id, E: FIRST + id, ...received(Date.now()) })

test('A1 A6 drops what the archive has, and nothing before it says so; late rows of a dropped day likewise', async () => {
  await using scene = await startScene()
  await scene.consume()
  assert.deepEqual(await scene.rows(), ALL)
  assert.deepEqual(await scene.retain(), { waiting: { ...NONE, trades: 2, book_ticker: 2 }, differing: NONE })
  await scene.archive()
  await scene.publish()
  assert.deepEqual(await scene.retain(), { waiting: NONE, differing: NONE })
  assert.deepEqual(await scene.rows(), {})

  await produce(scene.trades, 'BTCUSDT', [late(100), late(101)])
  await scene.consume()
  const { retention, lines } = startRetention(scene)
  assert.deepEqual(await scene.retain(retention), { waiting: { ...NONE, trades: 1 }, differing: NONE })
  assert.match(
    lines.join(),
    /has not merged what the tables have: raw_trades .* BTCUSDT: 2 rows more in the tables/,
  )
  await scene.archive()
  assert.deepEqual((await scene.retain(retention)).waiting, { ...NONE, trades: 1 })
  assert.deepEqual(await scene.rows(), { [`trades ${date(FIRST)}`]: 2 })
  await scene.publish()
  assert.deepEqual(await scene.retain(retention), { waiting: NONE, differing: NONE })
  assert.deepEqual(await scene.rows(), {})
})

test('A4 names what one store has otherwise, lacks or has alone, and keeps the day', async () => {
  await using scene = await startScene()
  await scene.consume()
  await scene.archive()
  await scene.publish()
  const { database } = scene
  const ofFirst = `'${new Date(FIRST).toISOString()}'::timestamptz`
  await database.query('CREATE TABLE saved AS SELECT * FROM trades')
  await database.query(
    `UPDATE trades SET price = price + 0.00000001 WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_time = ${ofFirst} + interval '3 ms'`,
  )
  await database.query(
    `DELETE FROM trades WHERE symbol = 'ETHUSDT' AND event_type = 'aggTrade' AND trade_time BETWEEN ${ofFirst} AND ${ofFirst} + interval '2 ms'`,
  )
  await database.query(`INSERT INTO book_ticker SELECT ${ofFirst} + interval '1 s', 'BNBUSDT', 1, 1, 1, 1, 1`)
  await alterArchive(
    scene,
    'raw_trades',
    SECOND,
    "SELECT * REPLACE (CASE WHEN symbol = 'BTCUSDT' THEN price + 0.00000001 ELSE price END AS price) FROM files",
  )
  await alterArchive(scene, 'agg_trades', SECOND, "FROM files WHERE symbol = 'BTCUSDT' OR trade_id % 10 <> 1")
  await alterArchive(
    scene,
    'book_ticker',
    SECOND,
    "FROM files UNION ALL SELECT * REPLACE (update_id + 100 AS update_id) FROM files WHERE symbol = 'ETHUSDT' AND update_id = 1",
  )
  await scene.publish()
  const before = await scene.rows()
  const { retention, lines } = startRetention(scene)
  assert.deepEqual(await scene.retain(retention), {
    waiting: NONE,
    differing: { ...NONE, trades: 2, book_ticker: 2 },
  })
  const named = () => lines.flatMap((line): string[] => JSON.parse(line).differences ?? [])
  const expected = [
    `book_ticker ${date(FIRST)} BNBUSDT: 1 row more in the tables`,
    `raw_trades ${date(FIRST)} BTCUSDT: the same number of rows (5), with other values`,
    `agg_trades ${date(FIRST)} ETHUSDT: 2 rows more in the archive`,
    `book_ticker ${date(SECOND)} ETHUSDT: 1 row more in the archive`,
    `raw_trades ${date(SECOND)} BTCUSDT: the same number of rows (5), with other values`,
    `agg_trades ${date(SECOND)} ETHUSDT: 1 row more in the tables`,
  ]
  assert.deepEqual(named(), expected)
  assert.deepEqual(await scene.rows(), before)
  await scene.retain(retention)
  assert.equal(named().length, expected.length, 'it is said once')

  await database.query('TRUNCATE trades')
  await database.query('INSERT INTO trades SELECT * FROM saved')
  await database.query("DELETE FROM book_ticker WHERE symbol = 'BNBUSDT'")
  assert.deepEqual(await scene.retain(startRetention(scene).retention), {
    waiting: NONE,
    differing: { ...NONE, trades: 1, book_ticker: 1 },
  })
  assert.deepEqual(await scene.rows(), {
    [`book_ticker ${date(SECOND)}`]: 10,
    [`trades ${date(SECOND)}`]: 20,
  })
})

test('A2 A4 a day of order books is dropped if the archive has the same levels', async () => {
  await using scene = await startScene()
  const { database } = scene
  const best = [['100.5', '3']]
  for (const day of [...OLD, Date.now()]) {
    const at = (ms: number) => ({ s: 'BTCUSDT', E: day + ms, ...received(day, ms) })
    await produce(scene.depth, 'BTCUSDT', [
      eventValue('depth', {
        ...at(1),
        U: 1,
        u: 5,
        b: [...best, ['99', '0.00000000']],
        a: [['123.45000000', '1']],
      }),
      eventValue('depth', { ...at(2), U: 6, u: 6, b: [], a: [] }),
      eventValue('depthSnapshot', {
        s: 'BTCUSDT',
        ...received(day, 3),
        lastUpdateId: 6,
        limit: 5,
        bids: best,
        asks: best,
      }),
    ])
  }
  await scene.consume()
  await scene.archive()
  await scene.publish()
  const books = async () =>
    (
      await database.query(
        `SELECT (SELECT count(*)::int FROM depth_updates WHERE event_time < now() - interval '5 days') AS changes,
           (SELECT count(*)::int FROM depth_snapshots WHERE ingestion_timestamp < now() - interval '5 days') AS snapshots`,
      )
    ).rows[0]
  assert.deepEqual(await books(), { changes: 4, snapshots: 2 })
  const ofFirst = `event_time < '${new Date(SECOND).toISOString()}' AND last_update_id = 5`
  const bids = async (sql: string) =>
    database.query(`UPDATE depth_updates SET bids = ${sql} WHERE ${ofFirst}`)
  // A quantity of 3 becomes one of 4.
  await bids('set_byte(bids, 3, get_byte(bids, 3) + 1)')
  // A derived book, which the archive does not have.
  await database.query(
    `INSERT INTO depth_snapshots (ingestion_timestamp, symbol, last_update_id, kind, bids, asks, event_time, anchor_update_id, anchor_timestamp)
     SELECT ingestion_timestamp, symbol, 6, 'derived', bids, asks, ingestion_timestamp, 6, ingestion_timestamp FROM depth_snapshots`,
  )
  const { retention, lines } = startRetention(scene)
  assert.deepEqual(await scene.retain(retention), { waiting: NONE, differing: { ...NONE, depth_updates: 1 } })
  const named = lines.flatMap((line): string[] => JSON.parse(line).differences ?? [])
  assert.deepEqual(named, [`depth ${date(FIRST)} BTCUSDT: the same number of rows (4), with other values`])
  assert.deepEqual(await books(), { changes: 2, snapshots: 0 })
  await bids('set_byte(bids, 3, get_byte(bids, 3) - 1)')
  assert.deepEqual(await scene.retain(startRetention(scene).retention), { waiting: NONE, differing: NONE })
  assert.deepEqual(await books(), { changes: 0, snapshots: 0 })
  assert.equal(await count(database, 'depth_updates'), 2, 'today stays')
  assert.equal(await count(database, 'depth_snapshots'), 2)
})

async function count(database: Queryable, table: string): Promise<number> {
  const { rows } = await database.query<{ n: number }>(`SELECT count(*)::int AS n FROM ${table}`)
  return rows[0]?.n ?? 0
}

test('A5 nothing is dropped by an archive that is restored, damaged or silent', async () => {
  await using scene = await startScene()
  await scene.consume()
  await scene.archive()
  const { folder, env, kafka, topic } = scene
  await scene.publish()
  const [file] = (await newestDayList(scene.store, 'raw_trades', date(FIRST)))?.files ?? []
  const path = join(env.ARCHIVE_URL, file?.key ?? '')
  const copy = join(folder, 'copy')
  await cp(env.ARCHIVE_URL, copy, { recursive: true })
  const restore = async () => {
    await rm(env.ARCHIVE_URL, { recursive: true })
    await cp(copy, env.ARCHIVE_URL, { recursive: true })
  }
  const announceAgain = async () => {
    await deleteTopic(topic)
    await createTopics([topic], 1)
    await scene.publish()
  }
  const whyKept = async () => {
    const { retention, lines } = startRetention(scene)
    const { waiting } = await scene.retain(retention)
    assert.deepEqual(await scene.rows(), ALL)
    return { waiting, said: lines.join() }
  }
  await appendFile(path, 'x')
  await assert.rejects(announceAgain(), /raw_trades\S+ was altered/)
  assert.match((await whyKept()).said, /the archive has confirmed nothing yet/)
  await rm(path)
  await assert.rejects(scene.publish(), /raw_trades\S+ is missing/)
  assert.match((await whyKept()).said, /the archive has confirmed nothing yet/)

  await restore()
  await alterArchive(scene, 'raw_trades', FIRST, 'FROM files')
  await announceAgain()
  await restore()
  await scene.publish()
  assert.match((await whyKept()).said, /has list 1 of raw_trades\S+, but announced list 2 before/)
  await rm(join(env.ARCHIVE_URL, '_days'), { recursive: true })
  await scene.announce()
  const gone = await whyKept()
  assert.match(gone.said, /has list 0 of raw_trades/)
  assert.deepEqual(gone.waiting, { ...NONE, trades: 2, book_ticker: 2 })

  await restore()
  await announceAgain()
  const rowsLost = "FROM files WHERE symbol <> 'ETHUSDT'"
  await alterArchive(scene, 'raw_trades', FIRST, rowsLost, 0)
  await alterArchive(scene, 'raw_trades', SECOND, rowsLost, 0)
  await alterArchive(scene, 'book_ticker', FIRST, rowsLost, 0)
  await alterArchive(scene, 'book_ticker', SECOND, rowsLost, 0)
  await scene.publish()
  const lost = await whyKept()
  assert.match(lost.said, /raw_trades\S* \S* ETHUSDT: 5 rows more in the tables/)

  await restore()
  await announceAgain()
  const sevenHoursAgo = confirmationRecord(topic, { at: Date.now() - 7 * 3_600_000, ends: {} })
  const sender = new RecordSender(kafka, 'test', 'lz4')
  await sender.send([sevenHoursAgo])
  assert.match((await whyKept()).said, /the archive last confirmed its files at/)
  await sender.send([confirmationRecord(topic, { at: Date.now() + 7 * 3_600_000, ends: {} })])
  assert.match((await whyKept()).said, /the archive last confirmed its files at/, 'a wrong clock')
  await sender.send([confirmationRecord(topic, { at: Date.now(), ends: {} })])
  await sender.close()
  assert.match((await whyKept()).said, /the archive has not read /)
  await scene.publish()
  await scene.retain(startRetention(scene).retention)
  assert.deepEqual(await scene.rows(), {})
})

test('A3 consumers that are killed again and again, two at once, drop each day once', {
  timeout: 240_000,
}, async () => {
  await using scene = await startScene()
  await scene.consume()
  const { env, database } = scene
  // The service would wait ten minutes for more rows of these days.
  await scene.archive()
  await scene.publish()
  assert.equal(await announcedDays(scene), 6)
  for (let kill = 0; kill < 3; kill++) {
    const starting = [startConsumerProcess(env), startConsumerProcess(env)]
    for (const consumer of await Promise.all(starting)) {
      await consumer.command.waitForLine(/Consumer started/, 60_000)
      await sleep(Math.random() * 1000)
      await consumer[Symbol.asyncDispose]()
    }
  }
  await using one = await startConsumerProcess(env)
  await using other = await startConsumerProcess(env)
  await until('the days to be dropped', async () => Object.keys(await scene.rows()).length === 0)
  const { rows } = await database.query(
    'SELECT table_name AS "table", sum(rows)::int AS rows, count(*)::int AS symbols FROM dropped_days GROUP BY 1 ORDER BY 1',
  )
  assert.deepEqual(rows, [
    { table: 'agg_trades', rows: 20, symbols: 4 },
    { table: 'book_ticker', rows: 20, symbols: 4 },
    { table: 'raw_trades', rows: 20, symbols: 4 },
  ])
  for (const consumer of [one, other]) {
    await consumer.ready()
    await consumer.stop()
  }
})

async function announcedDays({ kafka, topic }: Scene): Promise<number> {
  const announced = await readAnnounced(new PartitionFetcher(kafka, 'test', [topic]), topic, (day) => day)
  return announced.confirmation === null ? 0 : announced.days.size
}
