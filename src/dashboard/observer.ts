import { describeError } from '../errors.ts'
import { consumerStatus, ingestionStatus } from '../local/service-status.ts'
import type { Database } from '../store/database.ts'
import type { ConsumerStatus, IngestionStatus, LatencySummary } from '../telemetry/status.ts'
import { VERSION } from '../telemetry/version.ts'
import type { Clock } from '../timing/clock.ts'
import type { DashboardConfig } from './config.ts'
import { Incidents, problemsOf, type Seen } from './incidents.ts'
import { Rates } from './rates.ts'
import type { Moment, PartView, Past, Snapshot, StoredView } from './snapshot.ts'
import { readStored } from './stored.ts'

const EVERY_MS = 1000
/** The services are asked all the time, which costs them little; the database only while somebody looks. */
const DATABASE_EVERY_MS = 2000
/** Fifteen minutes. */
const MOMENTS_KEPT = 900
/** With `SYMBOLS=*` a page would be as long as the market. */
const SYMBOLS_SHOWN = 40

const NOTHING: LatencySummary = { count: 0, p50: 0, p90: 0, p99: 0, max: 0 }

type Listener = (snapshot: Snapshot) => void

/** Asks services and database for all pages together, and remembers what is drawn over time. */
export class Observer {
  readonly #config: DashboardConfig
  readonly #database: Database
  readonly #clock: Clock
  readonly #listeners = new Set<Listener>()
  readonly #incidents = new Incidents()
  readonly #rates = new Rates()
  readonly #moments: Moment[] = []
  #stored: StoredView | null = null
  #databaseProblem = ''
  #databaseAskedMs = Number.NEGATIVE_INFINITY
  #cancel: (() => void) | null = null
  #looking: Promise<void> = Promise.resolve()
  #stopped = false
  #newest: Snapshot | null = null

  constructor(config: DashboardConfig, database: Database, clock: Clock) {
    this.#config = config
    this.#database = database
    this.#clock = clock
  }

  start(): void {
    this.#looking = this.#look()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#cancel?.()
    await this.#looking
  }

  get past(): Past {
    return { moments: this.#moments, incidents: this.#incidents.kept }
  }

  /** The newest snapshot, without incidents; null before the first. */
  get newest(): Snapshot | null {
    return this.#newest === null ? null : { ...this.#newest, incidents: [] }
  }

  /** @returns ends it */
  listen(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  async #look(): Promise<void> {
    const startedMs = this.#clock.monotonicMs()
    const { ingestUrls, consumerUrls } = this.#config
    const [ingestions, consumers] = await Promise.all([
      Promise.all(ingestUrls.map(ingestionStatus)),
      Promise.all(consumerUrls.map(consumerStatus)),
    ])
    await this.#askDatabase(ingestions)
    if (this.#stopped) return
    const seen = this.#seen(ingestions, consumers)
    const snapshot = {
      ...seen,
      problems: problemsOf(seen),
      incidents: this.#incidents.observe(seen),
      moment: momentOf(seen),
    }
    this.#remember(snapshot.moment)
    this.#newest = snapshot
    for (const listener of this.#listeners) listener(snapshot)
    const tookMs = this.#clock.monotonicMs() - startedMs
    this.#cancel = this.#clock.schedule(Math.max(100, EVERY_MS - tookMs), () => this.start())
  }

  async #askDatabase(ingestions: ReadonlyArray<IngestionStatus | null>): Promise<void> {
    const nowMs = this.#clock.monotonicMs()
    const isWatched = this.#listeners.size > 0 || this.#stored === null
    if (!isWatched || nowMs - this.#databaseAskedMs < DATABASE_EVERY_MS) return
    this.#databaseAskedMs = nowMs
    try {
      this.#stored = await readStored(this.#database, symbolsOf(this.#config, ingestions))
      this.#databaseProblem = ''
    } catch (error) {
      this.#databaseProblem = `cannot be asked: ${describeError(error)}`
    }
  }

  #seen(
    ingestions: ReadonlyArray<IngestionStatus | null>,
    consumers: ReadonlyArray<ConsumerStatus | null>,
  ): Seen {
    const atMs = Math.floor(this.#clock.wallMicros() / 1000)
    const nowMs = this.#clock.monotonicMs()
    const { ingestUrls, consumerUrls } = this.#config
    const here = ingestions.filter((one) => one !== null)
    const there = consumers.filter((one) => one !== null)
    const inserted = there.length === 0 ? null : sum(there.map(({ counters }) => counters.inserted))
    return {
      atMs,
      version: VERSION,
      source: here[0]?.source ?? null,
      parts: [
        ...partViews('ingestion', ingestUrls, ingestions),
        ...partViews('consumer', consumerUrls, consumers),
        {
          name: 'database',
          url: '',
          health: this.#databaseProblem === '' ? 'well' : 'away',
          reason: this.#databaseProblem,
          uptimeMs: null,
        },
      ],
      connections: here.flatMap(({ connections }) => connections),
      streams: here.flatMap(({ streams }) =>
        Object.entries(streams).map(([stream, { events, lastSeenAgeMs, quiet }]) => ({
          stream,
          events,
          silentMs: lastSeenAgeMs,
          quiet,
          perSecond: this.#rates.of(stream, events, nowMs),
        })),
      ),
      partitions: there
        .flatMap(({ partitions }) => partitions)
        .sort((a, b) => a.topic.localeCompare(b.topic) || a.partition - b.partition),
      eventToReceiptMs: worst(here.map(({ eventToReceiptMs }) => eventToReceiptMs)),
      receiptToRowMs: worst(there.map(({ receiptToRowMs }) => receiptToRowMs)),
      received: here.length === 0 ? null : sum(here.map(({ counters }) => counters.received)),
      inserted,
      rowsPerSecond: inserted === null ? null : this.#rates.of('rows', inserted, nowMs),
      stored: this.#databaseProblem === '' ? this.#stored : null,
    }
  }

  #remember(moment: Moment): void {
    this.#moments.push(moment)
    if (this.#moments.length > MOMENTS_KEPT) this.#moments.shift()
  }
}

function momentOf(seen: Seen): Moment {
  const { atMs, eventToReceiptMs, receiptToRowMs, partitions, rowsPerSecond, streams, received } = seen
  const measured = ({ count }: LatencySummary, value: number) => (count === 0 ? null : value)
  return {
    atMs,
    receiptP50: measured(eventToReceiptMs, eventToReceiptMs.p50),
    receiptP99: measured(eventToReceiptMs, eventToReceiptMs.p99),
    rowP50: measured(receiptToRowMs, receiptToRowMs.p50),
    rowP99: measured(receiptToRowMs, receiptToRowMs.p99),
    lag: partitions.length === 0 ? null : sum(partitions.map(({ lag }) => lag)),
    rowsPerSecond,
    messagesPerSecond: received === null ? null : sum(streams.map(({ perSecond }) => perSecond)),
  }
}

/** Those of the settings, or else those whose streams the services know. */
function symbolsOf(
  { symbols }: DashboardConfig,
  ingestions: ReadonlyArray<IngestionStatus | null>,
): string[] {
  const known = ingestions.flatMap((one) =>
    Object.keys(one?.streams ?? {}).map((stream) => stream.slice(0, stream.indexOf('@')).toUpperCase()),
  )
  return [...new Set([...symbols, ...known])].slice(0, SYMBOLS_SHOWN)
}

function partViews(
  name: string,
  urls: readonly string[],
  statuses: ReadonlyArray<IngestionStatus | ConsumerStatus | null>,
): PartView[] {
  return urls.map((url, i) => {
    const status = statuses[i] ?? null
    const shown = urls.length === 1 ? name : `${name} ${i + 1}`
    if (status === null)
      return { name: shown, url, health: 'away', reason: 'does not answer', uptimeMs: null }
    const { ready, reason, uptimeMs } = status
    return {
      name: shown,
      url,
      health: ready ? 'well' : 'ailing',
      reason: ready ? '' : reason || 'starting',
      uptimeMs,
    }
  })
}

/** Percentiles of several services cannot be added: the slowest stands for all. */
function worst(latencies: readonly LatencySummary[]): LatencySummary {
  return latencies.reduce(
    (slowest, one) => (one.count > 0 && (slowest.count === 0 || one.p99 > slowest.p99) ? one : slowest),
    NOTHING,
  )
}

function sum(values: readonly number[]): number {
  return values.reduce((all, one) => all + one, 0)
}
