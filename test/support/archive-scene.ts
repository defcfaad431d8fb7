import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CommitChain, chainsOf } from '../../src/foundation/archive/commit-chain.ts'
import { openDuckDb } from '../../src/foundation/archive/duckdb.ts'
import { LocalCopies } from '../../src/foundation/archive/local-copies.ts'
import { archiveLocation, openStore } from '../../src/foundation/archive/open-store.ts'
import { loadSettings } from '../../src/foundation/settings/load.ts'
import type { Queryable } from '../../src/foundation/store/database.ts'
import { isCaughtUp } from '../../src/foundation/telemetry/status.ts'
import { createPipelineParts } from './pipeline-parts.ts'
import { type ArchiveProcess, startConsumerProcess, untilCaughtUp } from './services.ts'
import { until } from './wait-for.ts'

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

interface ArchiveScene extends AsyncDisposable {
  /** For an archive process. */
  readonly env: Readonly<Record<string, string>>
  /** Ends ingestion, waits until both stores have everything, and compares them. */
  assertEqual(archive: ArchiveProcess): Promise<void>
}

/**
 * Starts ingestion and a consumer with a new database.
 *
 * @param archive its settings; a new folder by default
 */
export async function startArchiveScene(
  archive: Readonly<Record<string, string>> = {},
): Promise<ArchiveScene> {
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
    ...archive,
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
      await assertSameRows(env, folder, parts.database)
    },
    async [Symbol.asyncDispose]() {
      await ingestion[Symbol.asyncDispose]()
      await consumer[Symbol.asyncDispose]()
      await parts[Symbol.asyncDispose]()
      await rm(folder, { recursive: true })
    },
  }
}

async function assertSameRows(
  env: Readonly<Record<string, string>>,
  folder: string,
  database: Queryable,
): Promise<void> {
  const store = await openStore(archiveLocation(loadSettings(env, { cwd: folder })))
  await using copies = new LocalCopies(store)
  const engine = await openDuckDb({ memoryBytes: 256 << 20, tempFolder: join(folder, 'temp'), threads: 1 })
  try {
    const duckDb = await engine.connect()
    const chains = await chainsOf(store)
    const records = (await Promise.all(chains.map((one) => new CommitChain(store, one).records()))).flat()
    for (const [table, { inDatabase, inArchive }] of Object.entries(TABLES)) {
      const files = records.flatMap((record) => record.files.filter((file) => file.table === table))
      await copies.add(files)
      const archived = await duckDb.rows<{ line: string }>(`${inArchive} FROM ${copies.read(files)}`)
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
    await store.close()
  }
}
