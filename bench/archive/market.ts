import { join } from 'node:path'
import { CommitChain, chainsOf } from '../../src/foundation/archive/commit-chain.ts'
import { openDuckDb, quoted } from '../../src/foundation/archive/duckdb.ts'
import { openFolderStore } from '../../src/foundation/archive/folder-store.ts'
import { sleep } from '../../src/foundation/runtime/backoff.ts'
import type { ArchiveStatus, IngestionStatus } from '../../src/foundation/telemetry/status.ts'
import { DEFAULT_SYMBOLS } from '../../src/sandbox/simulator/market/instruments.ts'
import { startSimulatedExchange } from '../../src/sandbox/simulator/simulated-exchange.ts'
import { fetchStatus } from '../../test/support/services.ts'
import { until } from '../../test/support/wait-for.ts'
import type { BenchOptions } from '../options.ts'
import type { Measured } from '../pipeline.ts'
import type { Place } from '../place.ts'
import type { Figures } from '../run.ts'
import { Sampler } from '../sampler.ts'
import { spreadOf } from '../summary.ts'
import { layTapeline } from '../tapeline.ts'
import { archivedIn, requireArchived } from './archived.ts'

const LIMIT_MS = 120_000
const EVERY_MS = 5000
const MEMORY_BYTES = 1 << 30
const MiB = 1 << 20

/** Many symbols through ingestion into the archive alone, at the highest of the rates. */
export async function archiveMarket(
  place: Place,
  folder: string,
  { rates, steadySeconds, marketSymbols, settings }: BenchOptions,
  signal: AbortSignal,
): Promise<Figures> {
  const symbols = Array.from({ length: marketSymbols }, (_, i) => DEFAULT_SYMBOLS[i] ?? `COIN${i + 1}USDT`)
  const exchange = await startSimulatedExchange({ symbols, messagesPerSecond: Math.max(...rates) })
  const source = { SYMBOLS: '*', BINANCE_WS_URL: exchange.wsUrl, BINANCE_REST_URL: exchange.restUrl }
  const pipeline = await layTapeline(place, [], { ...settings, ...source })
  const url = join(folder, 'market')
  const running: Measured[] = []
  const start = async (service: Promise<Measured>) => {
    running.push(await service)
    return service
  }
  try {
    const archive = await start(pipeline.startArchive(url, settings))
    const ingestion = await start(pipeline.startIngestion())
    const seen = async () => ({
      ...{ sent: await fetchStatus<IngestionStatus>(ingestion.url ?? '') },
      ...{ stored: await fetchStatus<ArchiveStatus>(archive.url ?? '') },
    })
    const begun = await until('the archive to receive', async () => {
      const now = await seen()
      return now.stored.ready && now.stored.consumed > 0 && now
    })
    const startedMs = performance.now()
    const processes = { archive: archive.pid, ingestion: ingestion.pid, broker: place.brokerPid }
    const sampler = new Sampler(processes)
    const before = sampler.now()
    const unread: number[] = []
    while (performance.now() - startedMs < steadySeconds * 1000) {
      await sleep(EVERY_MS, signal)
      const { sent, stored } = await seen()
      unread.push(Math.max(0, sent.counters.acknowledged - stored.consumed))
    }
    const ended = await seen()
    const seconds = (performance.now() - startedMs) / 1000
    const after = sampler.now()
    sampler.stop()
    await exchange.close()
    const { forwarded, backfilled } = await until(
      'the archive to have read everything',
      async () => {
        const { sent, stored } = await seen()
        const { acknowledged, queued, inFlight } = sent.counters
        return queued + inFlight === 0 && stored.consumed >= acknowledged && sent.counters
      },
      LIMIT_MS,
    )
    for (const process of running.splice(0).reverse()) await process.stop()
    const archived = await archivedIn(url)
    requireArchived(archived, forwarded + backfilled)
    const messages = ended.stored.consumed - begun.stored.consumed
    const micros = (name: string) =>
      (((after[name]?.cpuSeconds ?? 0) - (before[name]?.cpuSeconds ?? 0)) * 1e6) / messages
    const [early, late] = [unread.slice(0, unread.length / 2), unread.slice(unread.length / 2)]
    return {
      'rows/s': messages / seconds,
      rows: archived.rows,
      'trade ids missing': await missingIds(url),
      'unread messages, first half, median': spreadOf(early).median,
      'unread messages, second half, median': spreadOf(late).median,
      'unread messages, most': Math.max(...unread),
      'archive µs': micros('archive'),
      'ingestion µs': micros('ingestion'),
      'broker µs': micros('broker'),
      'archive MiB': (after['archive']?.peakBytes ?? 0) / MiB,
      'ingestion MiB': (after['ingestion']?.peakBytes ?? 0) / MiB,
      'bytes per row': archived.bytes / archived.rows,
      segments: archived.segments,
    }
  } catch (error) {
    const said = running.map((process) => process.output().slice(-2000)).join('\n')
    throw new Error(`The run failed; output of the services:\n${said}`, { cause: error })
  } finally {
    for (const process of running) await process.stop()
    await exchange.close()
    await pipeline.remove()
  }
}

/** Counts ids between the first and the last trade of each symbol that no segment has. */
async function missingIds(folder: string): Promise<number> {
  const store = openFolderStore(folder)
  const engine = await openDuckDb({
    memoryBytes: MEMORY_BYTES,
    tempFolder: join(folder, 'temp'),
    threads: 2,
  })
  try {
    const duckDb = await engine.connect()
    let missing = 0
    for (const table of ['raw_trades', 'agg_trades']) {
      const paths: string[] = []
      for (const partition of await chainsOf(store))
        for (const { files } of await new CommitChain(store, partition).records())
          for (const file of files)
            if (file.table === table) paths.push(quoted(await store.localCopy(file.key)))
      const [found] = await duckDb.rows<{ missing: bigint | null }>(
        `SELECT sum(missing)::BIGINT AS missing FROM (SELECT max(trade_id) - min(trade_id) + 1 - count(DISTINCT trade_id) AS missing
         FROM read_parquet([${paths.join()}]) GROUP BY symbol)`,
      )
      missing += Number(found?.missing ?? 0)
    }
    return missing
  } finally {
    engine.close()
  }
}
