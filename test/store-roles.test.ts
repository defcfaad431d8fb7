import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import type { Database } from '../src/foundation/store/database.ts'
import { readLosses, writeLosses } from '../src/foundation/store/losses.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { loadMigrations } from '../src/foundation/store/migrations.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createTestDatabase, databaseKinds, type TestDatabase } from './support/database.ts'
import { createTestTopics } from './support/kafka.ts'
import { markValue, produce } from './support/messages.ts'
import { type NativeTimescale, startNativeTimescale } from './support/native-timescaledb.ts'
import { startTapeline } from './support/processes.ts'
import { aggTradeValue, bookTickerValue, tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'
import { runStatements } from './support/statements.ts'
import { waitFor } from './support/wait-for.ts'

const options = { skip: databaseKinds()[0]?.skip ?? false }
const open = (url: string) => openPostgres({ url, poolMin: 0, poolMax: 2, applicationName: 'test' })

describe('users who have one role each', options, () => {
  let server: TestDatabase
  let owner: Database
  const logins: string[] = []
  before(async () => {
    server = await createTestDatabase('native')
    owner = open(server.url)
    assert.deepEqual((await migrate(owner)).notAllowed, [])
  })
  after(async () => {
    await owner.close()
    await server.drop()
    const admin = open(new URL('/postgres', server.url).href)
    for (const login of logins) await admin.query(`DROP ROLE ${login}`)
    await admin.close()
  })

  /** A URL of a new user with only this role. */
  async function login(role: string): Promise<string> {
    const name = `${role}_${randomBytes(4).toString('hex')}`
    await owner.query(`CREATE ROLE ${name} LOGIN PASSWORD 'secret' IN ROLE ${role}`)
    logins.push(name)
    const url = new URL(server.url)
    url.username = name
    url.password = 'secret'
    return url.href
  }
  async function allForbidden(url: string, statements: readonly string[]): Promise<void> {
    const database = open(url)
    try {
      for (const statement of statements) {
        await assert.rejects(
          database.query(statement),
          (error) => Reflect.get(Object(error), 'code') === '42501',
          `allowed: ${statement}`,
        )
      }
    } finally {
      await database.close()
    }
  }
  const DROPS = [
    'DROP TABLE trades',
    'TRUNCATE trades',
    'ALTER TABLE trades ADD COLUMN note text',
    'CREATE TABLE mine (a int)',
    'DROP VIEW raw_trades',
    'DROP FUNCTION candles',
    'DELETE FROM trades',
    'UPDATE trades SET price = 1',
    'DELETE FROM dead_letters',
    "SELECT drop_chunks('trades', now())",
    'SELECT tapeline_roles()',
    "INSERT INTO schema_migrations (version, name) VALUES (99, 'x')",
    'CREATE ROLE another',
  ]

  test('a writer has exactly the rights that the consumer needs, from the first batch to retention and retries', async () => {
    const url = await login('tapeline_writer')
    const topics = await createTestTopics({ prefix: 'writer' })
    const now = Date.now()
    const env = {
      ...topics.env,
      DATABASE_URL: url,
      MIGRATE_ON_START: 'false',
      AUTO_OFFSET_RESET: 'earliest',
      FLUSH_INTERVAL_MS: '200',
      RETENTION_DAYS: '5',
    }
    const count = async (sql: string) =>
      (await owner.query<{ n: number }>(`SELECT (${sql})::int AS n`)).rows[0]?.n
    try {
      await owner.query(
        `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
         SELECT now() - ago * interval '1 day', 'OLDUSDT', 'trade', ago, 1, 1, true, now() FROM unnest('{0,20}'::int[]) AS ago`,
      )
      await produce(topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('binance', topics.env)])
      await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [
        // The first row of its day: the writer creates a chunk.
        tradeValue({ t: 1, T: now - 86_400_000 }),
        aggTradeValue({ a: 1, T: now }),
        tradeValue({ t: 2, p: 'abc' }),
      ])
      await produce(topics.env.KAFKA_BOOK_TICKER_TOPIC, 'BTCUSDT', [
        bookTickerValue({ ingestion_timestamp_us: now * 1000 }),
      ])
      const gap = {
        gap_id: 'g1',
        symbol: 'BTCUSDT',
        event_type: 'trade',
        epoch: 0,
        from_id: 5,
        to_id: 9,
        cause: 'restart',
      }
      const times = {
        from_time: null,
        to_time: null,
        reason: null,
        detected_at: now,
        updated_at: now,
        closed_at: null,
      }
      for (const [revision, status] of [
        [1, 'open'],
        [2, 'unrecoverable'],
      ]) {
        await produce(topics.env.KAFKA_GAPS_TOPIC, 'g1', [
          Buffer.from(JSON.stringify({ ...gap, ...times, revision, status })),
        ])
      }
      await using consumer = await startConsumerProcess(env)
      await consumer.command.waitForLine(/Rows past RETENTION_DAYS were dropped/, 30_000)
      await waitFor(
        async () =>
          (await count("SELECT count(*) FROM trades WHERE symbol = 'BTCUSDT'")) === 2 &&
          (await count('SELECT count(*) FROM book_ticker')) === 1 &&
          (await count("SELECT count(*) FROM gaps WHERE status = 'unrecoverable'")) === 1 &&
          (await count('SELECT count(*) FROM dead_letters')) === 1,
        { timeoutMs: 30_000, what: `everything to be stored; its output:\n${consumer.command.output()}` },
      )
      await consumer.stop()
      assert.doesNotMatch(consumer.command.output(), /permission denied/)
      assert.equal(await count("SELECT count(*) FROM trades WHERE symbol = 'OLDUSDT'"), 1)

      await using retry = startTapeline(['dead-letters', 'retry'], { env })
      await retry.assertExit(1, 30_000)
      assert.match(retry.output(), /1 failed again/)
      assert.equal(await count('SELECT attempts FROM dead_letters'), 2)
      // With an up-to-date schema there is nothing to migrate.
      await using migrating = await startConsumerProcess({ ...env, MIGRATE_ON_START: 'true' })
      await migrating.ready()
      await migrating.stop()
    } finally {
      await topics.delete()
    }
    // The consumer also records messages that expired in Kafka.
    const writer = open(url)
    try {
      const loss = {
        topicId: '6f1f2c33-0000-4000-8000-000000000001',
        partition: 2,
        to: 40,
        cause: 'retention' as const,
      }
      await writeLosses(writer, [{ ...loss, seen: ['BTCUSDT trade'] }])
      await writeLosses(writer, [{ ...loss, seen: ['BTCUSDT trade', 'ETHUSDT trade'] }])
      // The consumers have recorded their start.
      const losses = (await readLosses(writer)).filter(({ cause }) => cause !== 'start')
      const [known, ...others] = losses
      assert.deepEqual(
        [others, known?.to, new Set(known?.seen)],
        [[], 40, new Set(['BTCUSDT trade', 'ETHUSDT trade'])],
      )
    } finally {
      await writer.close()
    }
    await allForbidden(url, [
      ...DROPS,
      "UPDATE meta SET value = 'another source'",
      "UPDATE dead_letters SET payload = 'x'",
      'DELETE FROM gaps',
      'DELETE FROM consumer_offsets',
      "SELECT * FROM candles('BTCUSDT', '1 minute', '2026-01-01', '2026-01-02')",
      'SELECT * FROM spreads',
      'SELECT * FROM raw_trades',
    ])
  })

  test('a reader runs verify and reads everything, including future tables, and changes nothing', async () => {
    const url = await login('tapeline_reader')
    for (const args of [['verify'], ['dead-letters', 'list', '--all']]) {
      await using command = startTapeline(args, { env: { DATABASE_URL: url } })
      await command.assertExit(0, 45_000)
    }
    const migrator = open(await login('tapeline_migrator'))
    const database = open(url)
    try {
      await migrator.transaction(async (connection) => {
        await connection.query('SET LOCAL ROLE tapeline_migrator')
        await connection.query('CREATE TABLE to_come (a int)')
      })
      for (const table of [
        'trades',
        'book_ticker',
        'raw_trades',
        'agg_trades',
        "candles('BTCUSDT', '1 minute', '2026-01-01', '2026-01-02')",
        'gaps',
        'dead_letters',
        'consumer_offsets',
        'meta',
        'schema_migrations',
        'to_come',
      ]) {
        await database.query(`SELECT * FROM ${table} LIMIT 1`)
      }
    } finally {
      await database.close()
      await migrator.close()
    }
    await allForbidden(url, [
      ...DROPS,
      "INSERT INTO meta (key, value) VALUES ('a', 'b')",
      'UPDATE gaps SET revision = 9',
      'SELECT 1 FROM dead_letters FOR UPDATE',
      'SELECT drop_old_chunks(1)',
      'SELECT compress_next_chunk(1)',
    ])
    await using retry = startTapeline(['dead-letters', 'retry'], { env: { DATABASE_URL: url } })
    await retry.assertExit(1, 30_000)
    assert.match(retry.output(), /permission denied.*\n {2}Use a user with the rights of tapeline_writer/)
  })

  test('a migrator updates an older schema, and the next migrator may change its objects', async () => {
    // Two versions back: removes the objects of the newest migrations.
    assert.deepEqual(
      loadMigrations()
        .slice(4)
        .map(({ name }) => name),
      ['roles', 'losses', 'spreads'],
    )
    await owner.query('DROP VIEW spreads')
    await owner.query('ALTER TABLE dead_letters DROP COLUMN digest')
    await owner.query('ALTER TABLE dead_letters ADD PRIMARY KEY (topic, topic_id, partition, kafka_offset)')
    await owner.query('CREATE INDEX dead_letters_unresolved ON dead_letters (topic)')
    await owner.query('DROP FUNCTION tapeline_roles')
    await owner.query('DELETE FROM schema_migrations WHERE version > 4')
    for (const expected of [/migrated from version 4 to 7/, /up to date, version 7/]) {
      await using command = startTapeline(['migrate'], {
        env: { DATABASE_URL: await login('tapeline_migrator') },
      })
      await command.assertExit(0, 30_000)
      assert.match(command.output(), expected)
      assert.doesNotMatch(command.output(), /may not run these statements/)
    }
    const { rows } = await owner.query(
      `SELECT DISTINCT pg_get_userbyid(proowner) AS owner FROM pg_proc WHERE proname IN ('tapeline_roles', 'drop_old_chunks')
       UNION SELECT DISTINCT tableowner FROM pg_tables WHERE tablename LIKE '\\_hyper%' OR tablename IN ('trades', 'meta')`,
    )
    assert.deepEqual(rows, [{ owner: 'tapeline_migrator' }])
  })
})

describe('a cluster that has no such roles yet', options, () => {
  let cluster: NativeTimescale
  let admin: Database
  before(async () => {
    const started = await startNativeTimescale({
      cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? assert.fail(),
    })
    if ('skip' in started) assert.fail(started.skip)
    cluster = started
    admin = open(cluster.url)
  })
  after(async () => {
    await admin.close()
    await cluster.stop()
  })
  const roles = async () =>
    (await admin.query("SELECT rolname FROM pg_roles WHERE rolname LIKE 'tapeline%' ORDER BY 1")).rows.length
  const urlOf = (name: string, user?: string) => {
    const url = new URL(cluster.url)
    url.pathname = `/${name}`
    if (user !== undefined) [url.username, url.password] = [user, 'secret']
    return url.href
  }

  test('four databases of a cluster migrated at once create the roles once', async () => {
    const names = ['a', 'b', 'c', 'd']
    for (let round = 0; round < 3; round++) {
      await runStatements(cluster.url, ...names.map((name) => `CREATE DATABASE ${name}`))
      const databases = names.map((name) => open(urlOf(name)))
      try {
        // The extension first: it takes long, and would otherwise separate them in time.
        for (const database of databases) await database.query('CREATE EXTENSION timescaledb')
        assert.equal(await roles(), 0)
        const reports = await Promise.all(databases.map((database) => migrate(database)))
        assert.deepEqual(
          reports.map(({ notAllowed }) => notAllowed),
          [[], [], [], []],
        )
        assert.equal(await roles(), 3)
      } finally {
        for (const database of databases) await database.close()
        await runStatements(cluster.url, ...names.map((name) => `DROP DATABASE ${name} WITH (FORCE)`))
      }
      for (const role of ['migrator', 'writer', 'reader']) await admin.query(`DROP ROLE tapeline_${role}`)
    }
  })

  test('an owner who created the roles but cannot act as them still has read access', async () => {
    await admin.query("CREATE ROLE maker LOGIN PASSWORD 'secret' CREATEROLE")
    await runStatements(cluster.url, 'CREATE DATABASE made OWNER maker')
    try {
      const env = { DATABASE_URL: urlOf('made', 'maker') }
      for (const args of [['migrate'], ['migrate'], ['sql', 'SELECT count(*) FROM trades']]) {
        await using command = startTapeline(args, { env })
        await command.assertExit(0, 30_000)
      }
      await using command = startTapeline(['export', 'BTCUSDT', '--day', '2026-01-31'], { env })
      await command.assertExit(2, 30_000)
      assert.match(command.output(), /Nothing was exported/)
    } finally {
      await runStatements(cluster.url, 'DROP DATABASE made WITH (FORCE)')
      for (const role of ['migrator', 'writer', 'reader']) await admin.query(`DROP ROLE tapeline_${role}`)
      await admin.query('DROP ROLE maker')
    }
  })

  test('an owner without the right to create roles, as on a managed database, can migrate, and gets the remaining SQL', async () => {
    await admin.query("CREATE ROLE manager LOGIN PASSWORD 'secret'")
    await runStatements(cluster.url, 'CREATE DATABASE managed OWNER manager')
    const asAdmin = open(urlOf('managed'))
    await asAdmin.query('CREATE EXTENSION timescaledb')
    await asAdmin.close()
    const env = { DATABASE_URL: urlOf('managed', 'manager') }
    {
      await using command = startTapeline(['migrate'], { env })
      await command.assertExit(0, 30_000)
      assert.match(command.output(), /Schema migrated from version 0 to \d+\n/)
      assert.match(
        command.output(),
        /Run them as a user who may, .*\n {2}CREATE ROLE tapeline_migrator NOLOGIN;\n {2}CREATE ROLE tapeline_writer NOLOGIN;\n {2}CREATE ROLE tapeline_reader NOLOGIN;\n/,
      )
    }
    for (const role of ['migrator', 'writer', 'reader'])
      await admin.query(`CREATE ROLE tapeline_${role} NOLOGIN`)
    {
      await using command = startTapeline(['migrate'], { env })
      await command.assertExit(0, 30_000)
      assert.doesNotMatch(command.output(), /may not run these statements/)
    }
    await admin.query("CREATE ROLE looker LOGIN PASSWORD 'secret' IN ROLE tapeline_reader")
    const looker = open(urlOf('managed', 'looker'))
    for (const view of ['agg_trades', 'spreads']) await looker.query(`SELECT * FROM ${view}`)
    await assert.rejects(looker.query('DELETE FROM trades'), /permission denied/)
    await looker.close()
    // A superuser later hands the tables over: existing users continue.
    {
      await using command = startTapeline(['migrate'], { env: { DATABASE_URL: urlOf('managed') } })
      await command.assertExit(0, 30_000)
    }
    const manager = open(urlOf('managed', 'manager'))
    const { rows } = await manager.query("SELECT tableowner FROM pg_tables WHERE tablename = 'trades'")
    assert.deepEqual(rows, [{ tableowner: 'tapeline_migrator' }])
    await manager.query("INSERT INTO meta (key, value) VALUES ('still', 'mine')")
    await manager.query('ALTER TABLE trades ADD COLUMN note text')
    await manager.close()
  })
})
