import { ExchangeRefusal } from '../foundation/binance/refusal.ts'
import { fetchIdentity } from '../foundation/binance/rest.ts'
import { tradeRest } from '../foundation/binance/trade-rest.ts'
import { exchangeIdentity } from '../foundation/binance/venue.ts'
import { WeightBudget } from '../foundation/binance/weight-budget.ts'
import { topicNames } from '../foundation/kafka/config.ts'
import { rejectOtherExchange } from '../foundation/kafka/exchange-identity-mark.ts'
import { parseTimeUnit, UNMARKED_TIME_UNIT } from '../foundation/market/time-unit.ts'
import { sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import type { Settings } from '../foundation/settings/load.ts'
import type { Database } from '../foundation/store/database.ts'
import { readFact } from '../foundation/store/meta.ts'
import { compareWithExchange, withComparison } from '../tools/verify/exchange-samples.ts'
import type { Report, Watermark } from '../tools/verify/report-types.ts'
import type { Scope } from '../tools/verify/scope.ts'
import type { StoreComparison } from '../tools/verify/store-comparison.ts'
import { type AuditOptions, audit, CHECK_LIMIT_MS, verify } from '../tools/verify/verify.ts'
import {
  type EndOffsets,
  hasReached,
  mayStillArrive,
  onlyOfRows,
  openEndOffsets,
} from '../tools/verify/watermark.ts'
import { withStoredArchive } from './stored-archive.ts'
import { withStoredData } from './stored-data.ts'
import { storedKafka } from './stored-kafka.ts'

/** How long and how often to look again, before what may be on its way counts as missing. */
interface SettleTimes {
  readonly limitMs: number
  readonly stepMs: number
}

const TABLES: SettleTimes = { limitMs: 30_000, stepMs: 2000 }

/** @param isArchive its segments are committed so long after their rows */
export function settleTimes(
  { ARCHIVE_FLUSH_INTERVAL_MS: flushMs }: Pick<Settings, 'ARCHIVE_FLUSH_INTERVAL_MS'>,
  isArchive: boolean,
): SettleTimes {
  if (!isArchive) return TABLES
  return { limitMs: TABLES.limitMs + flushMs, stepMs: Math.min(flushMs, 15_000) }
}

const USE = {
  applicationName: 'tapeline-verify',
  failure: 'the data cannot be audited',
  rights: 'Use a user with the rights of tapeline_reader: GRANT tapeline_reader TO …',
  narrower: 'Audit less at a time: --symbol, --from and --to.',
}

/** Audits the stored data. @param withExchange also compares samples with the exchange's REST */
export async function verifyStored(
  settings: Settings,
  options: Omit<AuditOptions, 'readEnds'> & { readonly signal: AbortSignal },
  withExchange = false,
): Promise<Report> {
  const { scope, signal } = options
  const ends = await openStoredEnds(settings, signal)
  try {
    return await withStoredData(settings, USE, async (database) => {
      const auditOptions = { ...options, readEnds: ends.read, asksExchange: withExchange }
      const once = () => verify(database, auditOptions)
      const report = await settled(once, settleTimes(settings, false), signal)
      if (!withExchange) return report
      return withComparison(report, await compareStored(settings, database, scope, report, signal))
    })
  } finally {
    await ends.close()
  }
}

/** Audits the archive. @throws TapelineError `ARCHIVE` when it cannot be read */
export async function verifyArchive(
  settings: Settings,
  options: Omit<AuditOptions, 'readEnds'> & { readonly signal: AbortSignal },
): Promise<Report> {
  const { scope, signal } = options
  const ends = await openStoredEnds(settings, signal)
  // Imported here, since the other commands do not need the engine.
  const { archiveTables, storedUntil } = await import('../tools/verify/archive-tables.ts')
  const { archivedRows } = await import('../tools/verify/archive-depth.ts')
  try {
    return await withStoredArchive(settings, signal, (reader) => {
      const once = () =>
        reader.read(async (snapshot) =>
          audit(await archiveTables(reader, snapshot, scope), {
            ...{ ...options, readEnds: ends.read, storedUntil: storedUntil(snapshot) },
            depthRows: archivedRows(reader.duckDb, snapshot),
          }),
        )
      return settled(once, settleTimes(settings, true), signal)
    })
  } finally {
    await ends.close()
  }
}

/**
 * Compares the rows of the database with those of the archive. If they differ, compares again once the
 * archive has everything that the database had.
 */
export async function compareWithTables(
  settings: Settings,
  scope: Scope,
  signal: AbortSignal,
): Promise<StoreComparison> {
  const { behindTables, compareStores } = await import('../tools/verify/store-comparison.ts')
  const how = { isSnapshot: true, limitMs: CHECK_LIMIT_MS, signal }
  const settling = new Settling(settleTimes(settings, true))
  return withStoredData(settings, USE, (database) =>
    withStoredArchive(settings, signal, async (reader) => {
      const once = () =>
        reader.read((snapshot) =>
          database.transaction(async (tables) => {
            const watermark = await behindTables(tables, snapshot)
            return { watermark, compared: await compareStores(tables, reader, snapshot, scope, Date.now()) }
          }, how),
        )
      for (;;) {
        const { watermark, compared } = await once()
        const mayChange = (first: Watermark | null) =>
          compared.differences.length > 0 && !hasReached(watermark, first ?? watermark)
        if (!settling.wantsLater(watermark, mayChange)) return compared
        await settling.wait(signal)
      }
    }),
  )
}

/** Audits again for a while, as long as what is missing may arrive. */
async function settled(
  once: () => Promise<Report>,
  times: SettleTimes,
  signal: AbortSignal,
): Promise<Report> {
  const settling = new Settling(times)
  for (;;) {
    const report = await once()
    if (!settling.wantsLater(report.watermark, (first) => mayStillArrive(report, first))) return report
    await settling.wait(signal)
  }
}

/** @throws TapelineError `SOURCE` when REST is another exchange than that of the rows */
async function compareStored(
  settings: Settings,
  database: Database,
  scope: Scope,
  report: Report,
  signal: AbortSignal,
): ReturnType<typeof compareWithExchange> {
  const { BINANCE_REST_URL: url, BINANCE_API_KEY: key, VENUE, REST_WEIGHT_PER_MINUTE: weight } = settings
  const unit = parseTimeUnit(await readFact(database, 'time_unit')) ?? UNMARKED_TIME_UNIT
  const { named } = await fetchIdentity(url, unit, signal).catch((error: unknown) => {
    throw error instanceof ExchangeRefusal
      ? error.forPerson()
      : new TapelineError('EXCHANGE', describeError(error), { cause: error, fix: 'Check BINANCE_REST_URL.' })
  })
  const asked = exchangeIdentity(named, { wsUrl: url, restUrl: url, venue: VENUE ?? null })
  const source = await readFact(database, 'source')
  const fix = 'Set BINANCE_REST_URL to the exchange of the rows.'
  if (source !== null) rejectOtherExchange('The tables of this database', source, asked, fix)
  return compareWithExchange(database, scope, report, {
    fetch: tradeRest(url, unit, Date.now, key),
    budget: new WeightBudget(weight),
    random: Math.random,
    signal,
  })
}

/**
 * Opens the end offsets of the audited topics: at KAFKA_BROKERS, else those of the running `up` or of the
 * default address, if the rows come from there.
 */
export async function openStoredEnds(settings: Settings, signal: AbortSignal): Promise<EndOffsets> {
  const { trades, bookTicker, gaps, deadLetters, depth } = topicNames(settings)
  const kafka = storedKafka(settings)
  const opening = openEndOffsets(kafka, [trades, bookTicker, gaps, deadLetters, depth], new Set([depth]))
  const found = await unlessAborted(opening, signal)
  const ends = settings.isSet('KAFKA_BROKERS') ? found : onlyOfRows(found, kafka.brokers.join())
  return { read: (stored) => unlessAborted(ends.read(stored), signal), close: () => ends.close() }
}

/** Decides whether to look again, for a while, because rows may be on their way. */
export class Settling {
  readonly #times: SettleTimes
  readonly #nowMs: () => number
  #first: { readonly watermark: Watermark; readonly atMs: number } | null = null

  constructor(times: SettleTimes, nowMs = () => performance.now()) {
    this.#times = times
    this.#nowMs = nowMs
  }

  /** @param mayChange whether rows may be on their way; `first` is the watermark of the first look */
  wantsLater(watermark: Watermark, mayChange: (first: Watermark | null) => boolean): boolean {
    if (!mayChange(this.#first?.watermark ?? null)) return false
    this.#first ??= { watermark, atMs: this.#nowMs() }
    if (this.#nowMs() - this.#first.atMs >= this.#times.limitMs) return false
    console.error('Missing rows may still arrive; looking again ...')
    return true
  }

  wait(signal: AbortSignal): Promise<void> {
    return sleep(this.#times.stepMs, signal)
  }
}
