import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { type DailyFileType, writeDailyFile } from '../src/sandbox/simulator/daily-files.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { zipOf } from '../src/sandbox/simulator/zip-file.ts'
import { createConsumerParts } from './support/consumer-parts.ts'
import { brokers } from './support/kafka.ts'
import { connectionTo } from './support/kafka-clients.ts'
import { idsByStream, markValue, produce, readLedger } from './support/messages.ts'
import { createPipelineParts, type PipelineParts } from './support/pipeline-parts.ts'
import { startTapeline } from './support/processes.ts'
import { gapRow } from './support/records.ts'
import {
  startArchiveProcess,
  startConsumerProcess,
  untilAcknowledged,
  untilCaughtUp,
  untilGapsClosed,
} from './support/services.ts'
import { until } from './support/wait-for.ts'

const folder = mkdtempSync(join(tmpdir(), 'tapeline-import-'))
after(() => rmSync(folder, { recursive: true }))

const LONG = { timeout: 300_000 }
const DAY_MS = 86_400_000
const TYPES = ['trade', 'aggTrade'] as const

/** Writes the simulator's daily files of what is recorded, and nothing before or after it. */
async function writeRecorded(database: PipelineParts['database'], exchange: Exchange): Promise<string[]> {
  const paths: string[] = []
  const { rows } = await database.query<{ symbol: string; type: DailyFileType; from: number; to: number }>(
    `SELECT symbol, event_type AS type, min(trade_id)::float8 AS "from", max(trade_id)::float8 AS "to" FROM trades
     WHERE event_type = ANY($1) GROUP BY 1, 2`,
    [TYPES],
  )
  for (const { symbol, type, from, to } of rows) {
    const events = exchange.history.events(type, symbol, from, to)
    // The test may run at midnight.
    for (const [day, ofDay] of Map.groupBy(events, ({ tradeTime }) => Math.floor(tradeTime / DAY_MS))) {
      const path = await writeDailyFile(folder, symbol, type, day * DAY_MS, ofDay)
      if (path !== null) paths.push(path)
    }
  }
  return paths
}

test(
  'L7 an import fills exactly the hole of a recording and closes its gaps; a whole recording equals its files',
  LONG,
  async () => {
    await using parts = await createPipelineParts({ messagesPerSecond: 600 })
    const { database, exchange, count } = parts
    const env: Readonly<Record<string, string>> = { ...parts.env, ...archiveOf(parts.env) }
    const history = (...args: string[]) => startTapeline(['history', ...args], { env })
    const named = "FROM gaps WHERE from_id IS NOT NULL AND status = 'unrecoverable'"
    const ofImport = "FROM gaps WHERE status = 'filled' AND reason = 'imported from a daily file'"
    await using consumer = await startConsumerProcess(env)
    await consumer.ready()
    {
      await using ingestion = await parts.ingest()
      await ingestion.ready()
      await untilAcknowledged(ingestion, 500)
      await ingestion.command.kill()
    }
    {
      // Too little is backfilled: what was missed meanwhile stays missing.
      await using ingestion = await parts.ingest({ BACKFILL_MAX_IDS: '1' })
      await ingestion.ready()
      await untilAcknowledged(ingestion, 500)
      await untilGapsClosed(ingestion)
      await until(
        'unrecoverable gaps in the table',
        async () => (await count(`SELECT count(*) ${named}`)) >= 3,
      )
      const lost = (await database.query<{ gap_id: string }>(`SELECT gap_id ${named}`)).rows.map(
        (row) => row.gap_id,
      )
      const files = await writeRecorded(database, exchange)
      await using dry = history('import', '--dry-run', ...files)
      await dry.assertExit(0)
      assert.equal(await count("SELECT count(*) FROM trades WHERE source = 'archive'"), 0)
      await using imported = history('import', ...files)
      await imported.assertExit(0)
      const closed = async () => {
        const { rows } = await database.query<{ gap_id: string }>(`SELECT gap_id ${ofImport}`)
        return lost.every((id) => rows.some(({ gap_id }) => gap_id === id))
      }
      await until('the gaps to be closed', closed)
      // Long enough for ingestion to read the rows of the ledger: it must not write over them.
      await untilAcknowledged(ingestion, (await ingestion.status()).counters.acknowledged + 4000)
      assert.ok(await closed())
      await ingestion.stop()
    }
    await untilCaughtUp(consumer)
    // On a busy machine ingestion may have lost more since.
    await using rest = history('import', ...(await writeRecorded(database, exchange)))
    await rest.assertExit(0)
    await untilCaughtUp(consumer)
    const holes = await count(`SELECT sum(to_id - from_id + 1) ${ofImport}`)
    const inHoles = `SELECT count(*) FROM trades WHERE source = 'archive' AND EXISTS (
      SELECT ${ofImport} AND symbol = trades.symbol AND event_type = trades.event_type AND trade_id BETWEEN from_id AND to_id)`
    assert.deepEqual(
      [await count("SELECT count(*) FROM trades WHERE source = 'archive'"), await count(inHoles)],
      [holes, holes],
      'exactly the holes were filled',
    )
    const files = await writeRecorded(database, exchange)
    await using check = history('check', ...files)
    await check.assertExit(0)
    // The archive has read the same topics, and its files must say the same.
    await using archive = await startArchiveProcess(env)
    await archive.ready()
    for (const store of [[], ['--archive']]) {
      await using again = history('import', ...store, folder)
      await again.assertExit(0, 120_000)
      assert.match(again.output(), /^0 rows published, 0 gaps closed\.$/m)
    }
    await using archived = history('check', '--archive', ...files)
    await archived.assertExit(0)
    await archive.stop()
    const rows = await count('SELECT count(*) FROM trades')
    {
      // The next start reads the imported trades, too.
      await using ingestion = await parts.ingest()
      await ingestion.ready()
      await untilAcknowledged(ingestion, 500)
      await untilGapsClosed(ingestion)
      await ingestion.stop()
    }
    await untilCaughtUp(consumer)
    assert.ok((await count('SELECT count(*) FROM trades')) > rows)
    assert.equal(await count(`SELECT count(*) ${named}`), 0)
    await startTapeline(['verify'], { env }).assertExit(0)
  },
)

/** Settings of an archive that is written often. */
function archiveOf(env: Readonly<Record<string, string>>): Record<string, string> {
  return {
    ARCHIVE_URL: join(mkdtempSync(join(folder, 'archive-')), 'archive'),
    ARCHIVE_FLUSH_INTERVAL_MS: '500',
    KAFKA_ARCHIVE_GROUP_ID: `${env['KAFKA_GROUP_ID']}-archive`,
  }
}

/** An untouched deployment with a ledger: an unrecoverable gap, and an open one, which is ingestion's. */
async function createMarkedParts(store: 'database' | 'archive') {
  const parts = await createConsumerParts()
  const { topics } = parts
  const env: Readonly<Record<string, string>> = {
    ...parts.env,
    ...archiveOf(parts.env),
  }
  const rows = [
    gapRow({ from_id: 10, to_id: 19, status: 'unrecoverable' }),
    gapRow({ from_id: 30, to_id: 34, status: 'open' }),
  ]
  const mark = async () => {
    await produce(topics.env.KAFKA_CHECKPOINTS_TOPIC, '!source', [
      markValue('test', topics.env, 'microsecond'),
    ])
    const headers = { schema: 'gap/1', instance: 'earlier' }
    const values = rows.map((row) => Buffer.from(JSON.stringify(row)))
    await produce(topics.env.KAFKA_GAPS_TOPIC, 'BTCUSDT', values, { headers })
  }
  const start = () => (store === 'archive' ? startArchiveProcess(env) : startConsumerProcess(env))
  return { ...parts, env, mark, start }
}

/** Writes a daily file with a trade of each id, and its checksum. */
async function writeTrades(ids: Iterable<number>): Promise<string> {
  const date = '2026-01-31'
  const name = `BTCUSDT-trades-${date}`
  const line = (id: number) =>
    `${id},61837.63000000,0.00250000,154.59407500,${Date.parse(date) * 1000 + id * 200},True,True\n`
  const zip = await zipOf(`${name}.csv`, Iterator.from(ids).map(line))
  const path = join(folder, `${name}.zip`)
  writeFileSync(path, zip)
  writeFileSync(`${path}.CHECKSUM`, `${createHash('sha256').update(zip).digest('hex')}  ${name}.zip\n`)
  return path
}

for (const store of ['database', 'archive'] as const) {
  test(
    `an import into the ${store} that is killed and run again publishes each trade once`,
    LONG,
    async () => {
      await using parts = await createMarkedParts(store)
      const { env, topics } = parts
      const ROWS = 150_000
      const path = await writeTrades(Array(ROWS).keys())
      const flags = store === 'archive' ? ['--archive'] : []
      const history = (what: string) => startTapeline(['history', what, ...flags, path], { env })
      await using service = await parts.start()
      await parts.mark()
      await service.ready()
      const ids = async () => (await idsByStream(topics.env.KAFKA_TRADES_TOPIC)).get('BTCUSDT trade') ?? []
      const topic = new PartitionFetcher(connectionTo(brokers()), 'tapeline-test', [
        topics.env.KAFKA_TRADES_TOPIC,
      ])
      await topic.connect()
      const hasRows = async () => (await topic.offsetRanges()).some(({ start, end }) => end > start)
      {
        await using killed = history('import')
        // An import is quick: reading the rows themselves would take until its end.
        await until('the first rows', hasRows, 60_000, 1)
        await killed.kill()
      }
      await topic.close()
      const before = (await ids()).length
      assert.ok(before < ROWS - 5, 'it was killed before its end')
      await using second = history('import')
      await second.assertExit(0, 120_000)
      const published = ROWS - 5 - before
      assert.match(
        second.output(),
        new RegExp(`^${published.toLocaleString('en-US')} rows published, 1 gap closed`, 'm'),
      )
      assert.match(second.output(), /in open gaps, which ingestion backfills: 5$/m)
      const all = await ids()
      assert.deepEqual([all.length, new Set(all).size], [ROWS - 5, ROWS - 5], 'in Kafka each trade is once')
      const ledger = await readLedger(topics.env.KAFKA_GAPS_TOPIC)
      assert.deepEqual(
        ledger.slice(2).map((row) => [row.from_id, row.to_id, row.revision, row.status]),
        [[10, 19, 4, 'filled']],
      )
      // It waits until everything is stored.
      await using third = history('import')
      await third.assertExit(0, 120_000)
      assert.match(third.output(), /^0 rows published, 0 gaps closed/m)
      await using check = history('check')
      await check.assertExit(1)
      assert.match(check.output(), /in the file, not stored: 5\n +ids 30 to 34\n +NOT EQUAL/)
    },
  )
}

test('an import refuses topics that do not name their exchange', LONG, async () => {
  await using parts = await createMarkedParts('database')
  const path = join(folder, 'BTCUSDT-trades-2026-01-30.zip')
  writeFileSync(path, await zipOf('BTCUSDT-trades-2026-01-30.csv', ['']))
  await using unmarked = startTapeline(['history', 'import', path], { env: parts.env })
  await unmarked.assertExit(1)
  assert.match(unmarked.output(), /does not name the exchange of the topics/)
})

test('a file whose every second id is missing, as 150,000 ranges, is imported', LONG, async () => {
  await using parts = await createMarkedParts('database')
  await using service = await parts.start()
  await parts.mark()
  await service.ready()
  const path = await writeTrades(
    Array(150_000)
      .keys()
      .map((i) => 2 * i),
  )
  await using dry = startTapeline(['history', 'import', '--dry-run', path], { env: parts.env })
  await dry.assertExit(0, 60_000)
  assert.match(dry.output(), /^149,997 rows would be published, 5 gaps would be closed/m)
})
