import { globSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import type { ConsumerStatus, IngestionStatus } from '../src/foundation/telemetry/status.ts'
import { DEFAULT_SYMBOLS } from '../src/sandbox/simulator/market/instruments.ts'
import { fetchStatus } from '../test/support/services.ts'
import { until } from '../test/support/wait-for.ts'
import { levelsOfDiff } from './feeder/depth-frames.ts'
import type { Fed } from './feeder/feed.ts'
import { Feeder } from './feeder/feeder.ts'
import type { BenchOptions } from './options.ts'
import type { Measured } from './pipeline.ts'
import { type Place, withDatabase } from './place.ts'
import { rowsSince } from './rows.ts'
import { type Figures, LAST_FLUSH_US, requireRows, SHARES } from './run.ts'
import { Sampler } from './sampler.ts'
import { spreadOf } from './summary.ts'
import { layTapeline } from './tapeline.ts'

/** The last batch waits for its flush. */
const LIMIT_MS = 120_000
/**
 * Flat out, so many diffs are sent at once, and so many are under way at most: fewer than fill the queue of
 * ingestion, which gives up a connection that it could not read for 5 s.
 */
const AT_ONCE = 2000
const UNDER_WAY = 20_000
const UNDER_WAY_EVERY_MS = 50
/** Interval between two readings of both status pages. */
const EVERY_MS = 500
const TENTHS = 10
const MiB = 1 << 20

/** Few symbols, as fast as their rows are stored. */
export function depthFlatOut(
  place: Place,
  folder: string,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<Figures> {
  return storeDiffs(place, folder, options, signal, options.symbols, options.messages, null)
}

/** Many symbols, in turn, at the highest of the rates. */
export function depthMarket(
  place: Place,
  folder: string,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<Figures> {
  const { rates, steadySeconds, marketSymbols } = options
  const symbols = Array.from({ length: marketSymbols }, (_, i) => DEFAULT_SYMBOLS[i] ?? `COIN${i + 1}USDT`)
  const rate = Math.max(...rates)
  return storeDiffs(place, folder, { ...options, warmUp: rate }, signal, symbols, rate * steadySeconds, rate)
}

/**
 * Sends recorded diffs through ingestion, Kafka and the consumer into the tables, and checks that nothing is
 * missing there.
 *
 * @param count of diffs, after those of the warm-up
 * @param perSecond null: as fast as they are stored
 */
async function storeDiffs(
  place: Place,
  folder: string,
  { warmUp, settings }: BenchOptions,
  signal: AbortSignal,
  symbols: readonly string[],
  count: number,
  perSecond: number | null,
): Promise<Figures> {
  const feeder = await Feeder.start('depth', symbols, join(folder, 'depth-feeder.log'), 'microsecond')
  const exchange = { BINANCE_WS_URL: feeder.wsUrl, BINANCE_REST_URL: feeder.restUrl }
  const laid = await layTapeline(place, symbols, { STREAM_TYPES: 'depth', ...settings, ...exchange })
  const pipeline = { ...laid, tables: { timed: 'depth_updates', untimed: null } }
  const running: Measured[] = []
  try {
    const consumer = await pipeline.startConsumer()
    running.push(consumer)
    const ingestion = await pipeline.startIngestion()
    running.push(ingestion)
    const stored = () => fetchStatus<ConsumerStatus>(consumer.url ?? '')
    const untilStored = (diffs: number, everyMs: number) =>
      until(
        `${diffs} diffs to be stored`,
        async () => {
          signal.throwIfAborted()
          return diffsIn(await stored()) >= diffs
        },
        LIMIT_MS + diffs,
        everyMs,
      )
    let sent = 0
    const feed = async (diffs: number, rate: number | null): Promise<Fed> => {
      if (rate !== null) return feeder.feed(diffs, rate)
      const startedUs = Date.now() * 1000
      let endedUs = startedUs
      for (const end = sent + diffs; sent < end; ) {
        await untilStored(sent - UNDER_WAY, UNDER_WAY_EVERY_MS)
        const next = Math.min(AT_ONCE, end - sent)
        endedUs = (await feeder.feed(next, null)).endedUs
        sent += next
      }
      return { startedUs, endedUs }
    }
    await feed(warmUp, null)
    await untilStored(warmUp, UNDER_WAY_EVERY_MS)

    const sampler = new Sampler({
      ...{ ingestion: ingestion.pid, consumer: consumer.pid, feeder: feeder.pid },
      ...{ broker: place.brokerPid, database: place.postgresPid },
    })
    const before = sampler.now()
    const seen: Array<{ readonly unread: number; readonly usage: ReturnType<Sampler['now']> }> = []
    const watch = async (end: AbortSignal) => {
      while (!end.aborted) {
        await sleep(EVERY_MS, end).catch(() => undefined)
        const { counters } = await fetchStatus<IngestionStatus>(ingestion.url ?? '')
        const unread = Math.max(0, counters.acknowledged - (await stored()).counters.consumed)
        seen.push({ unread, usage: sampler.now() })
      }
    }
    const fed = new AbortController()
    const watching = watch(AbortSignal.any([signal, fed.signal]))
    const { startedUs, endedUs } = await feed(count, perSecond).finally(() => fed.abort())
    await watching
    await untilStored(warmUp + count, EVERY_MS)
    const after = sampler.now()
    sampler.stop()
    const latencyUntilUs = perSecond === null ? undefined : endedUs - LAST_FLUSH_US
    const rows = await rowsSince(pipeline, startedUs, SHARES, latencyUntilUs)
    requireRows(rows, count)
    const { snapshots, anchored, bytes } = await requireChains(pipeline.databaseUrl, symbols, warmUp + count)
    const logBytes = logBytesOf(join(folder, 'kafka'), laid.env.KAFKA_DEPTH_TOPIC)
    const rate = (SHARES[1] * rows.rows) / rows.toSeconds
    const micros = (name: string) =>
      (((after[name]?.cpuSeconds ?? 0) - (before[name]?.cpuSeconds ?? 0)) * 1e6) / count
    const tenths = (name: string) =>
      Object.fromEntries(
        Array.from({ length: TENTHS }, (_, i) => {
          const { usage } = seen[Math.ceil(((i + 1) * seen.length) / TENTHS) - 1] ?? {}
          return [`${name} MiB after ${i + 1} tenths`, (usage?.[name]?.residentBytes ?? 0) / MiB]
        }),
      )
    const unread = seen.map((one) => one.unread)
    const middle = Math.floor(unread.length / 2)
    return {
      'diffs/s': rate,
      'level changes/s': rate * levelsOfDiff(),
      ...Object.fromEntries(Object.keys(after).map((name) => [`${name} µs`, micros(name)])),
      'ingestion MiB': (after['ingestion']?.peakBytes ?? 0) / MiB,
      'consumer MiB': (after['consumer']?.peakBytes ?? 0) / MiB,
      ...tenths('ingestion'),
      ...tenths('consumer'),
      'unread messages, first half, median': spreadOf(unread.slice(0, middle)).median,
      'unread messages, second half, median': spreadOf(unread.slice(middle)).median,
      'unread messages, most': Math.max(...unread),
      'receipt→row p50': rows.receiptToRow.p50,
      'receipt→row p99': rows.receiptToRow.p99,
      'bytes per row': bytes / (warmUp + count),
      'bytes per message in Kafka': logBytes / (warmUp + count + snapshots),
      snapshots,
      'symbols without a snapshot': symbols.length - anchored,
    }
  } catch (error) {
    const said = running.map((process) => process.output().slice(-2000)).join('\n')
    throw new Error(`The run failed; output of the services:\n${said}`, { cause: error })
  } finally {
    for (const process of running.reverse()) await process.stop()
    await feeder.stop()
    await pipeline.remove()
  }
}

/** Size of the segments of a topic. */
function logBytesOf(dataDir: string, topic: string): number {
  const segments = globSync(`${dataDir}/**/${topic}-*/*.log`)
  return segments.reduce((sum, file) => sum + statSync(file).size, 0)
}

function diffsIn({ rows }: ConsumerStatus): number {
  return Object.values(rows.depth ?? {}).reduce((sum, one) => sum + one, 0)
}

/** @throws unless every symbol has its share of the diffs, each id once, and the ledger is empty */
async function requireChains(
  databaseUrl: string,
  symbols: readonly string[],
  diffs: number,
): Promise<{ readonly snapshots: number; readonly anchored: number; readonly bytes: number }> {
  const [found] = await withDatabase(databaseUrl, async (database) => {
    const { rows } = await database.query<Record<(typeof COUNTED)[number], number>>(COUNTS)
    return rows
  })
  if (found === undefined) throw new Error('The database has counted nothing')
  const share = Math.floor(diffs / symbols.length)
  const isWhole = found.symbols === symbols.length && found.diffs === diffs && found.fewest >= share
  if (!isWhole || found.breaks > 0 || found.gaps > 0 || found.letters > 0)
    throw new Error(`${diffs} diffs of ${symbols.length} symbols were sent: ${JSON.stringify(found)}`)
  return found
}

const COUNTED = [
  ...(['symbols', 'diffs', 'fewest', 'breaks', 'gaps', 'letters'] as const),
  ...(['snapshots', 'anchored', 'bytes'] as const),
] as const

/** A break is a diff whose first id does not follow the last one of the diff before. */
const COUNTS = `SELECT count(*)::float8 AS symbols, sum(diffs)::float8 AS diffs, min(diffs)::float8 AS fewest, sum(breaks)::float8 AS breaks,
    (SELECT count(*) FROM gaps)::float8 AS gaps,
    (SELECT count(*) FROM dead_letters)::float8 AS letters,
    (SELECT count(*) FROM depth_snapshots WHERE kind = 'rest')::float8 AS snapshots,
    hypertable_size('depth_updates')::float8 AS bytes,
    (SELECT count(DISTINCT symbol) FROM depth_snapshots WHERE kind = 'rest')::float8 AS anchored
  FROM (SELECT symbol, count(*) AS diffs, count(*) FILTER (WHERE first_update_id <> before + 1) AS breaks
    FROM (SELECT symbol, first_update_id, lag(last_update_id) OVER (PARTITION BY symbol ORDER BY last_update_id) AS before
      FROM depth_updates) AS ordered GROUP BY symbol) AS chains`
