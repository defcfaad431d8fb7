import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { CommitChain, chainsOf } from '../src/foundation/archive/commit-chain.ts'
import { openDuckDb } from '../src/foundation/archive/duckdb.ts'
import { openFolderStore } from '../src/foundation/archive/folder-store.ts'
import type { Queryable } from '../src/foundation/store/database.ts'
import { isCaughtUp } from '../src/foundation/telemetry/status.ts'
import { createPipelineParts } from './support/pipeline-parts.ts'
import {
  type ArchiveProcess,
  startArchiveProcess,
  startConsumerProcess,
  untilCaughtUp,
} from './support/services.ts'
import { until } from './support/wait-for.ts'

const micros = (column: string) => `(extract(epoch FROM ${column}) * 1000000)::bigint`
const columns = (type: string, times: readonly string[], others: readonly string[]) => ({
  inDatabase: `SELECT concat_ws(' ', symbol, ${[...times.map(micros), ...others].join()}) AS line FROM ${type}`,
  inArchive: `SELECT concat_ws(' ', symbol, ${[...times.map((column) => `epoch_us(${column})`), ...others].join()}) AS line`,
})
const TRADE = ['epoch', 'trade_id', 'price', 'quantity', 'is_buyer_maker::text', 'source']
const TRADE_TIMES = ['trade_time', 'event_time', 'ingestion_timestamp']
/** By table of the archive: the rows of the database as lines of text, and those of the archive's files. */
const TABLES = {
  raw_trades: columns("trades WHERE event_type = 'trade'", TRADE_TIMES, TRADE),
  agg_trades: columns("trades WHERE event_type = 'aggTrade'", TRADE_TIMES, [
    ...TRADE,
    'first_trade_id',
    'last_trade_id',
  ]),
  book_ticker: columns(
    'book_ticker',
    ['ingestion_timestamp'],
    ['update_id', 'bid_price', 'bid_quantity', 'ask_price', 'ask_quantity'],
  ),
}

interface Scene extends AsyncDisposable {
  readonly env: Readonly<Record<string, string>>
  /** Ends ingestion, waits until both stores have everything, and compares them. */
  assertEqual(archive: ArchiveProcess): Promise<void>
}

async function startScene(): Promise<Scene> {
  const parts = await createPipelineParts({
    messagesPerSecond: 1500,
    symbols: ['BTCUSDT', 'ETHUSDT', 'BNBUSDT'],
  })
  const folder = await mkdtemp(join(tmpdir(), 'tapeline-archive-'))
  const env = {
    ...parts.env,
    ARCHIVE_URL: join(folder, 'archive'),
    ARCHIVE_FLUSH_INTERVAL_MS: '300',
    KAFKA_ARCHIVE_GROUP_ID: `${parts.env.KAFKA_GROUP_ID}-archive`,
    AUTO_OFFSET_RESET: 'earliest',
  }
  const consumer = await startConsumerProcess(env)
  const ingestion = await parts.ingest(env)
  await ingestion.ready()
  return {
    env,
    async assertEqual(archive) {
      await ingestion.stop()
      await untilCaughtUp(consumer)
      const sinceMs = performance.now()
      await until('the archive to have everything', async () => {
        const { partitions, pending } = await archive.status()
        const isRead = partitions.length > 0 && isCaughtUp(partitions, performance.now() - sinceMs)
        return isRead && pending === 0
      })
      await archive.stop()
      await consumer.stop()
      await assertSameRows(env.ARCHIVE_URL, parts.database)
    },
    async [Symbol.asyncDispose]() {
      await ingestion[Symbol.asyncDispose]()
      await consumer[Symbol.asyncDispose]()
      await parts[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
}

async function assertSameRows(folder: string, database: Queryable): Promise<void> {
  const store = await openFolderStore(folder)
  const engine = await openDuckDb({ memoryBytes: 256 << 20, tempFolder: join(folder, 'temp'), threads: 1 })
  try {
    const duckDb = await engine.connect()
    const chains = await chainsOf(store)
    const records = (await Promise.all(chains.map((one) => new CommitChain(store, one).records()))).flat()
    for (const [table, { inDatabase, inArchive }] of Object.entries(TABLES)) {
      const files = records.flatMap((record) => record.files.filter((file) => file.table === table))
      const paths = files.map(({ key }) => `'${store.pathOf(key)}'`).join()
      const archived = await duckDb.rows<{ line: string }>(`${inArchive} FROM read_parquet([${paths}])`)
      const { rows: stored } = await database.query<{ line: string }>(inDatabase)
      const [ours, expected] = [archived, stored].map((rows) => rows.map(({ line }) => line).sort())
      assert.ok(stored.length > 100, `${table}: ${stored.length} rows`)
      assert.equal(
        ours?.find((line, i) => line !== expected?.[i]),
        undefined,
        table,
      )
      assert.equal(archived.length, stored.length, table)
    }
  } finally {
    engine.close()
  }
}

/** Each kill costs a session of the group, and a start. */
const KILLS = process.env['TAPELINE_TEST_ALL'] === '1' ? 4 : 1

test('an archive that is killed again and again has every row of the tables once, digit for digit', async () => {
  await using scene = await startScene()
  for (let kill = 0; kill < KILLS; kill++) {
    await using archive = await startArchiveProcess(scene.env)
    await archive.until('segments', ({ segments }) => segments > 5 + kill)
    archive.command.signal('SIGKILL')
    await archive.command.exit()
  }
  await using archive = await startArchiveProcess(scene.env)
  await scene.assertEqual(archive)
})

test('an owner that stands still and wakes after its successor has committed adds no row twice', async () => {
  await using scene = await startScene()
  await using first = await startArchiveProcess(scene.env)
  await first.until('segments', ({ segments }) => segments > 5)
  first.command.signal('SIGSTOP')
  await using second = await startArchiveProcess(scene.env)
  await second.until('segments of the successor', ({ segments }) => segments > 5)
  first.command.signal('SIGCONT')
  await until('the group to be divided again', async () => {
    const [one, other] = await Promise.all([first.status(), second.status()])
    return one.ready && other.ready && one.partitions.length > 0 && other.partitions.length > 0
  })
  await first.stop()
  await scene.assertEqual(second)
})

const CAN_MOUNT = process.getuid?.() === 0 && spawnSync('unshare', ['--mount', 'true']).status === 0

test('a full disk loses nothing: the archive waits, and continues when there is room', {
  skip: CAN_MOUNT ? false : 'only root can mount a small disk',
}, async () => {
  await using scene = await startScene()
  const disk = scene.env['ARCHIVE_URL'] ?? ''
  await mkdir(disk)
  const mount = (...args: string[]) => assert.equal(spawnSync('mount', args).status, 0, args.join(' '))
  mount('-t', 'tmpfs', '-o', 'size=600k', 'tmpfs', disk)
  using _disk = { [Symbol.dispose]: () => void spawnSync('umount', [disk]) }
  await using archive = await startArchiveProcess(scene.env)
  await until('the disk to be full', async () => {
    const { ready, reason } = await archive.status()
    return !ready && /Writing a segment to .* failed: .*(No space left|ENOSPC)/.test(reason)
  })
  mount('-o', 'remount,size=64m', disk)
  await until('the archive to be ready', async () => (await archive.status()).ready)
  await scene.assertEqual(archive)
})

test('refuses a folder with other files, and an archive of another exchange', async () => {
  await using parts = await createPipelineParts({ messagesPerSecond: 100 })
  const folder = await mkdtemp(join(tmpdir(), 'tapeline-archive-'))
  await using ingestion = await parts.ingest()
  await ingestion.ready()
  const refused = async (file: string, content: string) => {
    await rm(folder, { recursive: true })
    await mkdir(folder)
    await writeFile(join(folder, file), content)
    await using archive = await startArchiveProcess({ ...parts.env, ARCHIVE_URL: folder })
    await archive.command.assertExit(1, 60_000)
    return archive.command.output()
  }
  assert.match(await refused('photo.jpg', ''), /has files and is not an archive of Tapeline/)
  const other = { format: 1, source: 'binance', timeUnit: 'microsecond' }
  assert.match(await refused('_meta.json', JSON.stringify(other)), /hold data of \\?"binance/)
  await rm(folder, { recursive: true })
})
