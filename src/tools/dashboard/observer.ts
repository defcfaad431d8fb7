import { sleep } from '../../foundation/runtime/backoff.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import { NO_DATABASE } from '../../foundation/settings/parsers.ts'
import type { Database } from '../../foundation/store/database.ts'
import { Rates } from '../../foundation/telemetry/rates.ts'
import { VERSION } from '../../foundation/telemetry/service.ts'
import {
  archiveStatus,
  consumerStatus,
  ingestionStatus,
  type ServiceStatus,
  type ServiceUrls,
  serviceUrls,
} from '../../foundation/telemetry/service-status.ts'
import {
  type ArchiveStatus,
  type ConsumerStatus,
  type IngestionStatus,
  type LatencySummary,
  totalLag,
  unfilledGaps,
  unknownBooks,
} from '../../foundation/telemetry/status.ts'
import { Incidents, problemsOf, type Seen } from './incidents.ts'
import type { ArchiveView, Moment, PartView, Past, Snapshot, StreamView } from './page/snapshot.ts'
import { StoredWatch } from './stored-watch.ts'

const EVERY_MS = 1000
/** A client that requests a snapshot counts as watching for this long. */
const WATCHED_FOR_MS = 10_000
/** 15 minutes. */
const MOMENTS_KEPT = 900
/** Limits the page, which `SYMBOLS=*` would fill with the whole market. */
const SYMBOLS_SHOWN = 40
const STREAMS_SHOWN = 3 * SYMBOLS_SHOWN

const NOTHING: LatencySummary = { count: 0, p50: 0, p90: 0, p99: 0, max: 0 }

export interface DashboardConfig {
  readonly host: string
  readonly port: number
  readonly urls: ServiceUrls
  /** Null where only the archive keeps the rows. */
  readonly databaseUrl: string | null
  /** Shown first, in this order. Symbols that only the services know follow. */
  readonly symbols: readonly string[]
}

/** @param running the running `up`, for what the settings do not name */
export function dashboardConfig(
  settings: Settings,
  running: (Parameters<typeof serviceUrls>[1] & { databaseUrl: string }) | null = null,
): DashboardConfig {
  const databaseUrl = running?.databaseUrl ?? settings.DATABASE_URL
  return {
    host: settings.HTTP_HOST,
    port: settings.DASHBOARD_PORT,
    urls: serviceUrls(settings, running),
    databaseUrl: databaseUrl === NO_DATABASE ? null : databaseUrl,
    symbols: settings.SYMBOLS.filter((symbol) => symbol !== '*'),
  }
}

/** Polls the services and the database once for all pages, and keeps the history of the charts. */
export class Observer {
  readonly #config: DashboardConfig
  /** Null without a database. */
  readonly #stored: StoredWatch | null
  readonly #clock: Clock
  readonly #onDefect: (error: unknown) => void
  readonly #listeners = new Set<(snapshot: Snapshot) => void>()
  readonly #incidents = new Incidents()
  readonly #rates = new Rates()
  readonly #moments: Moment[] = []
  /** Rows that each consumer had inserted when it last answered, by its URL. */
  readonly #inserted = new Map<string, number>()
  #watchedUntilMs = Number.NEGATIVE_INFINITY
  #defect = ''
  readonly #stopping = new AbortController()
  #running: Promise<void> = Promise.resolve()
  #newest: Snapshot | null = null

  /** @param onDefect called once when a service's answer cannot be shown */
  constructor(
    config: DashboardConfig,
    database: Database | null,
    clock: Clock,
    onDefect: (error: unknown) => void,
  ) {
    this.#config = config
    this.#stored = database === null ? null : new StoredWatch(database, clock)
    this.#clock = clock
    this.#onDefect = onDefect
  }

  start(): void {
    this.#running = this.#lookUntilStopped()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#running
  }

  get past(): Past {
    return { moments: this.#moments, incidents: this.#incidents.kept }
  }

  get hasLooked(): boolean {
    return this.#newest !== null
  }

  /** The newest snapshot, without incidents; null before the first. Counts as watching for a while. */
  look(): Snapshot | null {
    this.#watchedUntilMs = this.#clock.monotonicMs() + WATCHED_FOR_MS
    return this.#newest === null ? null : { ...this.#newest, incidents: [] }
  }

  /** @returns a function that removes the listener */
  listen(listener: (snapshot: Snapshot) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async #lookUntilStopped(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      const startedMs = this.#clock.monotonicMs()
      try {
        await this.#lookOnce()
        this.#defect = ''
      } catch (error) {
        // Like an answer of another version that is not understood. The next poll tries again.
        const defect = describeError(error)
        if (defect !== this.#defect) this.#onDefect(error)
        this.#defect = defect
      }
      const waitMs = Math.max(100, EVERY_MS - (this.#clock.monotonicMs() - startedMs))
      // The wait ends early at the stop.
      await sleep(waitMs, signal, this.#clock).catch(() => undefined)
    }
  }

  async #lookOnce(): Promise<void> {
    const { urls } = this.#config
    const [ingestions, consumers, archives] = await Promise.all([
      Promise.all(urls.ingestion.map(ingestionStatus)),
      Promise.all(urls.consumer.map(consumerStatus)),
      Promise.all(urls.archive.map(archiveStatus)),
    ])
    const isWatched = this.#listeners.size > 0 || this.#clock.monotonicMs() < this.#watchedUntilMs
    await this.#stored?.look(symbolsOf(this.#config, ingestions), isWatched)
    if (this.#stopping.signal.aborted) return
    const seen = this.#seen(ingestions, consumers, archives)
    const snapshot = {
      ...seen,
      ...shownStreams(seen.streams),
      problems: problemsOf(seen),
      incidents: this.#incidents.observe(seen),
      moment: momentOf(seen, ![...consumers, ...archives].includes(null)),
    }
    this.#remember(snapshot.moment)
    this.#newest = snapshot
    for (const listener of this.#listeners) listener(snapshot)
  }

  #seen(
    ingestions: ReadonlyArray<IngestionStatus | null>,
    consumers: ReadonlyArray<ConsumerStatus | null>,
    archives: ReadonlyArray<ArchiveStatus | null>,
  ): Seen {
    const atMs = Math.floor(this.#clock.wallMicros() / 1000)
    const nowMs = this.#clock.monotonicMs()
    const { urls } = this.#config
    const here = ingestions.filter((one) => one !== null)
    const there = consumers.filter((one) => one !== null)
    const rates = consumers.flatMap((one, i) => {
      const url = urls.consumer[i] ?? ''
      if (one === null) return []
      this.#inserted.set(url, one.counters.inserted)
      return [this.#rates.of(`rows ${url}`, one.counters.inserted, nowMs)]
    })
    return {
      atMs,
      version: VERSION,
      source: here[0]?.source ?? null,
      parts: [
        ...partViews('ingestion', urls.ingestion, ingestions),
        ...partViews('consumer', urls.consumer, consumers),
        ...partViews('archive', urls.archive, archives),
        ...(this.#stored === null ? [] : [this.#stored.part]),
      ],
      connections: ingestions.flatMap((one, i) =>
        (one?.connections ?? []).map((connection) => ({
          ...connection,
          part: partName('ingestion', urls.ingestion, i),
        })),
      ),
      unfilled: here.flatMap(({ openGaps }) => unfilledGaps(openGaps)?.text ?? []),
      unknownBooks: here.flatMap(({ books }) => unknownBooks(books) ?? []),
      streams: here.flatMap(({ streams }) =>
        Object.entries(streams).map(([stream, { events, lastSeenAgeMs, quiet }]) => ({
          stream,
          events,
          silentMs: lastSeenAgeMs,
          quiet,
          perSecond: this.#rates.of(stream, events, nowMs),
        })),
      ),
      partitions: (urls.consumer.length > 0 ? there : archives.filter((one) => one !== null))
        .flatMap(({ partitions }) => partitions)
        .sort((a, b) => a.topic.localeCompare(b.topic) || a.partition - b.partition),
      eventToReceiptMs: worst(here.map(({ eventToReceiptMs }) => eventToReceiptMs)),
      receiptToRowMs: worst(there.map(({ receiptToRowMs }) => receiptToRowMs)),
      received: here.length === 0 ? null : sum(here.map(({ counters }) => counters.received)),
      inserted: there.length === 0 ? null : sum([...this.#inserted.values()]),
      rowsPerSecond: there.length === 0 ? null : sum(rates),
      hasDatabase: this.#stored !== null,
      stored: this.#stored?.newest ?? null,
      archive: archiveView(archives, this.#archiveRates(archives, nowMs)),
    }
  }

  /** Messages that each archive reads per second. */
  #archiveRates(archives: ReadonlyArray<ArchiveStatus | null>, nowMs: number): number[] {
    return archives.map((one, i) =>
      one === null ? 0 : this.#rates.of(`archive ${this.#config.urls.archive[i]}`, one.consumed, nowMs),
    )
  }

  #remember(moment: Moment): void {
    this.#moments.push(moment)
    if (this.#moments.length > MOMENTS_KEPT) this.#moments.shift()
  }
}

function shownStreams(streams: readonly StreamView[]): Pick<Snapshot, 'streams' | 'streamsLeftOut'> {
  if (streams.length <= STREAMS_SHOWN) return { streams, streamsLeftOut: 0 }
  const first = streams.toSorted((a, b) => Number(b.quiet) - Number(a.quiet) || b.perSecond - a.perSecond)
  return { streams: first.slice(0, STREAMS_SHOWN), streamsLeftOut: streams.length - STREAMS_SHOWN }
}

/** @param lagIsKnown whether every consumer has answered with its partitions */
function momentOf(seen: Seen, lagIsKnown: boolean): Moment {
  const { atMs, eventToReceiptMs, receiptToRowMs, partitions, streams, received, archive } = seen
  const rowsPerSecond = seen.rowsPerSecond ?? archive?.perSecond ?? null
  const measured = ({ count }: LatencySummary, value: number) => (count === 0 ? null : value)
  return {
    atMs,
    receiptP50: measured(eventToReceiptMs, eventToReceiptMs.p50),
    receiptP99: measured(eventToReceiptMs, eventToReceiptMs.p99),
    rowP50: measured(receiptToRowMs, receiptToRowMs.p50),
    rowP99: measured(receiptToRowMs, receiptToRowMs.p99),
    lag: partitions.length === 0 || !lagIsKnown ? null : totalLag(partitions),
    rowsPerSecond,
    messagesPerSecond: received === null ? null : sum(streams.map(({ perSecond }) => perSecond)),
  }
}

/** The configured symbols, then those whose streams the services report. */
function symbolsOf({ symbols }: DashboardConfig, ingestions: Array<IngestionStatus | null>): string[] {
  const streams = ingestions.flatMap((one) => Object.keys(one?.streams ?? {}))
  const known = streams.map((stream) => stream.slice(0, stream.indexOf('@')).toUpperCase())
  return [...new Set([...symbols, ...known])].slice(0, SYMBOLS_SHOWN)
}

function partViews(
  name: string,
  urls: readonly string[],
  statuses: ReadonlyArray<ServiceStatus | null>,
): PartView[] {
  return urls.map((url, i) => {
    const status = statuses[i] ?? null
    const part = { name: partName(name, urls, i), url }
    if (status === null) return { ...part, health: 'away', reason: 'does not answer', uptimeMs: null }
    const { ready, uptimeMs } = status
    const reason = ready ? refusedText(status) : status.reason || 'starting'
    return { ...part, health: ready ? 'well' : 'ailing', reason, uptimeMs }
  })
}

/** Why the exchange refuses requests of an ingestion that is still ready, like those for gaps. */
function refusedText(status: ServiceStatus): string {
  if (status.service !== 'ingestion') return ''
  const { handshakes, rest } = status.refusals
  const one = rest ?? handshakes
  if (one === null) return ''
  return `the exchange refuses ${rest === null ? 'handshakes' : 'REST'} (${one.reason}), next attempt ${one.retryAt}`
}

function partName(name: string, urls: readonly string[], i: number): string {
  return urls.length === 1 ? name : `${name} ${i + 1}`
}

/** @returns null without an archive */
function archiveView(
  archives: ReadonlyArray<ArchiveStatus | null>,
  perSecond: readonly number[],
): ArchiveView | null {
  if (archives.length === 0) return null
  const here = archives.filter((one) => one !== null)
  const days = here.flatMap(({ newestDay }) => newestDay ?? [])
  const isKnown = here.length === archives.length && here.some(({ partitions }) => partitions.length > 0)
  return {
    rows: sum(here.flatMap(({ rows }) => Object.values(rows))),
    bytes: sum(here.map(({ bytes }) => bytes)),
    perSecond: sum(perSecond),
    lag: isKnown ? totalLag(here.flatMap(({ partitions }) => partitions)) : null,
    oldestUncommittedMs: Math.max(0, ...here.map((one) => one.oldestUncommittedMs)),
    newestDay: days.sort().at(-1) ?? null,
  }
}

/** Percentiles of several services cannot be combined, so the slowest service counts. */
function worst(latencies: readonly LatencySummary[]): LatencySummary {
  return latencies.reduce(
    (slowest, one) => (one.count > 0 && (slowest.count === 0 || one.p99 > slowest.p99) ? one : slowest),
    NOTHING,
  )
}

function sum(values: readonly number[]): number {
  return values.reduce((all, one) => all + one, 0)
}
