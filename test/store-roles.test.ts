import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, describe, test } from 'node:test'
import type { Database } from '../src/foundation/store/database.ts'
import { readLosses, writeLosses } from '../src/foundation/store/losses.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { loadMigrations } from '../src/foundation/store/migrations.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { column } from './support/columns.ts'
import { databaseKinds, databaseOfSuite } from './support/database.ts'
import { ended } from './support/ended.ts'
import { createTestTopics } from './support/kafka.ts'
import { markValue, produce } from './support/messages.ts'
import { type NativeTimescale, startNativeTimescale } from './support/native-timescaledb.ts'
import { startTapeline } from './support/processes.ts'
import { aggTradeValue, bookTickerValue, gapRow, tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'
import { runStatements } from './support/statements.ts'
import { until } from './support/wait-for.ts'

const options = { skip: databaseKinds()[0]?.skip ?? false }
const open = (url: string) => openPostgres({ url, poolMin: 0, poolMax: 2, applicationName: 'test' })
const ROLES = ['tapeline_migrator', 'tapeline_writer', 'tapeline_reader']

/** Runs a command, and returns its output. */
async function run(args: string[], env: Readonly<Record<string, string>>, exitCode = 0): Promise<string> {
  await using command = startTapeline(args, { env })
  await command.assertExit(exitCode, 45_000)
  return command.output()
}

/** Runs work on a database that is closed afterwards. */
async function on<Result>(url: string, work: (database: Database) => Promise<Result>): Promise<Result> {
  await using database = ended(open(url), 'close')
  return await work(database)
}

describe('users who have one role each', options, () => {
  const logins: string[] = []
  // Before the database is dropped, which is registered next.
  after(async () => {
    for (const login of logins) await server.database.query(`DROP OWNED BY ${login}; DROP ROLE ${login}`)
  })
  const server = databaseOfSuite('migrated', 'native')

  /** A URL of a new user with only this role. */
  async function login(role: string): Promise<string> {
    const name = `${role}_${randomBytes(4).toString('hex')}`
    await server.database.query(`CREATE ROLE ${name} LOGIN PASSWORD 'secret' IN ROLE ${role}`)
    logins.push(name)
    const url = new URL(server.url)
    url.username = name
    url.password = 'secret'
    return url.href
  }
  const allForbidden = (url: string, statements: readonly string[]) =>
    on(url, async (database) => {
      for (const statement of statements)
        await assert.rejects(database.query(statement), { code: '42501' }, `allowed: ${statement}`)
    })
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
      (await server.database.query<{ n: number }>(`SELECT (${sql})::int AS n`)).rows[0]?.n
    try {
      await server.database.query(
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
      for (const status of ['open', 'unrecoverable'] as const) {
        const row = gapRow({ gap_id: 'g1', status })
        await produce(topics.env.KAFKA_GAPS_TOPIC, 'g1', [Buffer.from(JSON.stringify(row))])
      }
      await using consumer = await startConsumerProcess(env)
      await consumer.command.waitForLine(/Rows past RETENTION_DAYS were dropped/, 30_000)
      await until(
        `everything to be stored; its output:\n${consumer.command.output()}`,
        async () =>
          (await count("SELECT count(*) FROM trades WHERE symbol = 'BTCUSDT'")) === 2 &&
          (await count('SELECT count(*) FROM book_ticker')) === 1 &&
          (await count("SELECT count(*) FROM gaps WHERE status = 'unrecoverable'")) === 1 &&
          (await count('SELECT count(*) FROM dead_letters')) === 1,
      )
      await consumer.stop()
      assert.doesNotMatch(consumer.command.output(), /permission denied/)
      assert.equal(await count("SELECT count(*) FROM trades WHERE symbol = 'OLDUSDT'"), 1)

      assert.match(await run(['dead-letters', 'retry'], env, 1), /1 failed again/)
      assert.equal(await count('SELECT attempts FROM dead_letters'), 2)
      // With an up-to-date schema there is nothing to migrate.
      await using migrating = await startConsumerProcess({ ...env, MIGRATE_ON_START: 'true' })
      await migrating.ready()
      await migrating.stop()
    } finally {
      await topics.delete()
    }
    // The consumer also records messages that expired in Kafka.
    await on(url, async (writer) => {
      const topicId = '6f1f2c33-0000-4000-8000-000000000001'
      const loss = { topicId, partition: 2, to: 40, cause: 'retention' } as const
      await writeLosses(writer, [{ ...loss, seen: ['BTCUSDT trade'] }])
      await writeLosses(writer, [{ ...loss, seen: ['BTCUSDT trade', 'ETHUSDT trade'] }])
      // The consumers have recorded their start.
      const losses = (await readLosses(writer)).filter(({ cause }) => cause !== 'start')
      assert.deepEqual(
        losses.map(({ to, seen }) => [to, new Set(seen)]),
        [[40, new Set(['BTCUSDT trade', 'ETHUSDT trade'])]],
      )
    })
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
    const env = { DATABASE_URL: url }
    for (const args of [['verify'], ['dead-letters', 'list', '--all']]) await run(args, env)
    await on(await login('tapeline_migrator'), (migrator) =>
      migrator.transaction(async (connection) => {
        await connection.query('SET LOCAL ROLE tapeline_migrator')
        await connection.query('CREATE TABLE to_come (a int)')
      }),
    )
    await on(url, async (database) => {
      for (const table of [
        ...['trades', 'book_ticker', 'raw_trades', 'agg_trades', 'gaps', 'dead_letters'],
        ...['consumer_offsets', 'meta', 'schema_migrations', 'to_come'],
        "candles('BTCUSDT', '1 minute', '2026-01-01', '2026-01-02')",
      ])
        await database.query(`SELECT * FROM ${table} LIMIT 1`)
    })
    await allForbidden(url, [
      ...DROPS,
      "INSERT INTO meta (key, value) VALUES ('a', 'b')",
      'UPDATE gaps SET revision = 9',
      'SELECT 1 FROM dead_letters FOR UPDATE',
      'SELECT drop_old_chunks(1)',
      'SELECT compress_next_chunk(1)',
    ])
    assert.match(
      await run(['dead-letters', 'retry'], env, 1),
      /permission denied.*\n {2}Use a user with the rights of tapeline_writer/,
    )
  })

  test('a migrator updates an older schema, and the next migrator may change its objects', async () => {
    // One version back: removes the objects of the newest migration.
    assert.deepEqual(loadMigrations().at(-1)?.name, 'roles')
    const newest = loadMigrations().length
    await server.database.query('DROP FUNCTION tapeline_roles')
    await server.database.query('DELETE FROM schema_migrations WHERE version = $1', [newest])
    for (const expected of [
      `migrated from version ${newest - 1} to ${newest}`,
      `up to date, version ${newest}`,
    ]) {
      const output = await run(['migrate'], { DATABASE_URL: await login('tapeline_migrator') })
      assert.ok(output.includes(expected), output)
      assert.doesNotMatch(output, /may not run these statements/)
    }
    const { rows } = await server.database.query(
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
        assert.deepEqual(column(reports, 'notAllowed'), [[], [], [], []])
        assert.equal(await roles(), 3)
      } finally {
        for (const database of databases) await database.close()
        await runStatements(cluster.url, ...names.map((name) => `DROP DATABASE ${name} WITH (FORCE)`))
      }
      for (const role of ROLES) await admin.query(`DROP ROLE ${role}`)
    }
  })

  test('an owner who created the roles but cannot act as them still has read access', async () => {
    await admin.query("CREATE ROLE maker LOGIN PASSWORD 'secret' CREATEROLE")
    await runStatements(cluster.url, 'CREATE DATABASE made OWNER maker')
    try {
      const env = { DATABASE_URL: urlOf('made', 'maker') }
      for (const args of [['migrate'], ['migrate'], ['sql', 'SELECT count(*) FROM trades']])
        await run(args, env)
      const output = await run(['export', 'BTCUSDT', '--day', '2026-01-31'], env, 2)
      assert.match(output, /Nothing was exported/)
    } finally {
      await runStatements(cluster.url, 'DROP DATABASE made WITH (FORCE)')
      for (const role of ROLES) await admin.query(`DROP ROLE ${role}`)
      await admin.query('DROP ROLE maker')
    }
  })

  test('an owner without the right to create roles, as on a managed database, can migrate, and gets the remaining SQL', async () => {
    await admin.query("CREATE ROLE manager LOGIN PASSWORD 'secret'")
    await runStatements(cluster.url, 'CREATE DATABASE managed OWNER manager')
    await on(urlOf('managed'), (asAdmin) => asAdmin.query('CREATE EXTENSION timescaledb'))
    const env = { DATABASE_URL: urlOf('managed', 'manager') }
    const output = await run(['migrate'], env)
    assert.match(output, /Schema migrated from version 0 to \d+\n/)
    const creations = ROLES.map((role) => `CREATE ROLE ${role} NOLOGIN`)
    assert.match(output, /Run them as a user who may, .*\n {2}CREATE ROLE/)
    assert.ok(output.includes(creations.map((one) => `  ${one};\n`).join('')), output)
    for (const creation of creations) await admin.query(creation)
    assert.doesNotMatch(await run(['migrate'], env), /may not run these statements/)
    await admin.query("CREATE ROLE looker LOGIN PASSWORD 'secret' IN ROLE tapeline_reader")
    await on(urlOf('managed', 'looker'), async (looker) => {
      for (const view of ['agg_trades', 'spreads']) await looker.query(`SELECT * FROM ${view}`)
      await assert.rejects(looker.query('DELETE FROM trades'), /permission denied/)
    })
    // A superuser later hands the tables over: existing users continue.
    await run(['migrate'], { DATABASE_URL: urlOf('managed') })
    await on(urlOf('managed', 'manager'), async (manager) => {
      const { rows } = await manager.query("SELECT tableowner FROM pg_tables WHERE tablename = 'trades'")
      assert.deepEqual(rows, [{ tableowner: 'tapeline_migrator' }])
      await manager.query("INSERT INTO meta (key, value) VALUES ('still', 'mine')")
      await manager.query('ALTER TABLE trades ADD COLUMN note text')
    })
  })
})
