import { sleep } from '../src/foundation/runtime/backoff.ts'
import {
  type ArchiveStatus,
  type ConsumerStatus,
  type IngestionStatus,
  totalLag,
} from '../src/foundation/telemetry/status.ts'
import { DEFAULT_SYMBOLS } from '../src/sandbox/simulator/market/instruments.ts'
import { Acknowledgements } from './acknowledgements.ts'
import { residentBytes } from './memory.ts'
import { PART_NAMES, type PartName } from './options.ts'
import { OutageBook } from './outages.ts'
import { Recoveries, type ServiceName } from './recoveries.ts'
import type { Sample } from './slopes.ts'
import type { Stage } from './stage.ts'
import type { Violations } from './violations.ts'
import { consumerImbalance, ingestionImbalance, type Observation, watchService } from './watch.ts'

const CONNECTIONS_EVERY_MS = 40
const PROCESSES_EVERY_MS = 1000
/**
 * A stream that delivered within this time is fresh: even the slowest of the most traded symbols
 * delivers several times a second.
 */
const FRESH_MS = 5000
const MOST_TRADED = DEFAULT_SYMBOLS.map((symbol) => symbol.toLowerCase())

/** Observes all parts from the outside during the run, and keeps what the final checks need. */
export class Observer {
  readonly outages = new OutageBook()
  readonly recoveries = new Recoveries()
  /** Peak resident memory, in bytes. */
  readonly peakBytes: Record<PartName, number> = {
    ...{ ingestion: 0, consumer: 0, broker: 0, database: 0, archive: 0 },
  }
  /** Resident memory of the services, once a second. */
  readonly resident: Record<ServiceName, Sample[]> = { ingestion: [], consumer: [] }
  readonly acknowledgements = new Acknowledgements()
  ingestion: Observation<IngestionStatus> | null = null
  consumer: Observation<ConsumerStatus> | null = null
  /** By process; empty without an archive. */
  readonly archives: Array<Observation<ArchiveStatus> | null>
  readonly #stage: Stage
  readonly #violations: Violations
  readonly #stopping = new AbortController()
  readonly #work: Array<Promise<void>> = []
  /** Frames received by earlier processes of ingestion, and by the present one. */
  #receivedBefore = 0
  #received = 0

  constructor(stage: Stage, violations: Violations) {
    this.#stage = stage
    this.archives = stage.archiveUrls.map(() => null)
    this.#violations = violations
  }

  start(): void {
    const { signal } = this.#stopping
    const { ingestionUrl, consumerUrl, archiveUrls } = this.#stage
    this.#work.push(
      watchService<IngestionStatus>(ingestionUrl, (seen) => this.#onIngestion(seen), signal),
      watchService<ConsumerStatus>(consumerUrl, (seen) => this.#onConsumer(seen), signal),
      ...archiveUrls.map((url, i) =>
        watchService<ArchiveStatus>(url, (seen) => this.#onArchive(i, seen), signal),
      ),
      this.#repeatedly(CONNECTIONS_EVERY_MS, () => this.#lookAtConnections()),
      this.#repeatedly(PROCESSES_EVERY_MS, () => this.#lookAtProcesses()),
    )
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await Promise.all(this.#work)
  }

  /** Messages received by all processes of ingestion together. */
  get received(): number {
    return this.#receivedBefore + this.#received
  }

  /** Total lag; null while it is unknown. */
  get lag(): number | null {
    return totalLag(this.consumer?.status?.partitions ?? [])
  }

  /** Describes why the system is not quiet yet; empty when it is. */
  unrest(): string {
    const { status, ready } = this.ingestion ?? { status: null, ready: false }
    if (!ready || status === null)
      return `ingestion is not ready${status === null ? '' : `: ${status.reason}`}`
    if (status.openGaps.length > 0) return `${status.openGaps.length} gaps are open`
    const missing = status.books?.needs['missing'] ?? 0
    if (missing > 0) return `${missing} order books lack a snapshot`
    const stale = Object.entries(status.streams).filter(
      ([name, { lastSeenAgeMs }]) =>
        MOST_TRADED.some((symbol) => name.startsWith(symbol)) && (lastSeenAgeMs ?? Infinity) > FRESH_MS,
    )
    if (stale.length > 0) return `${stale.map(([name]) => name).join()} deliver no frames`
    if (this.consumer?.ready !== true)
      return `the consumer is not ready: ${this.consumer?.status?.reason ?? 'no answer'}`
    const archive = this.archives.find((one) => one?.ready !== true)
    if (archive !== undefined) return `an archive is not ready: ${archive?.status?.reason ?? 'no answer'}`
    const [unhealed] = this.recoveries.unhealed()
    return unhealed === undefined ? '' : `not over: ${unhealed}`
  }

  #onIngestion(seen: Observation<IngestionStatus>): void {
    this.ingestion = seen
    this.recoveries.ingestion(seen)
    this.acknowledgements.observe(seen)
    if (seen.status === null) return
    const { received } = seen.status.counters
    if (received < this.#received) this.#receivedBefore += this.#received
    this.#received = received
    const imbalance = ingestionImbalance(seen.status)
    if (imbalance !== null) this.#violations.add(`Counters do not conserve: ${imbalance}`)
  }

  #onConsumer(seen: Observation<ConsumerStatus>): void {
    this.consumer = seen
    this.recoveries.consumer(seen)
    const imbalance = seen.status === null ? null : consumerImbalance(seen.status)
    if (imbalance !== null) this.#violations.add(`Counters do not conserve: ${imbalance}`)
  }

  #onArchive(process: number, seen: Observation<ArchiveStatus>): void {
    this.archives[process] = seen
    const ready = this.archives.every((one) => one?.ready === true)
    this.recoveries.archive(Math.min(...this.archives.map((one) => one?.atMs ?? 0)), ready)
  }

  #lookAtConnections(): void {
    // A connection without streams only checks the identity of the exchange.
    const open = this.#stage.exchange.connections().filter(({ streams }) => streams > 0)
    this.outages.observe(Date.now(), open.length)
  }

  #lookAtProcesses(): void {
    for (const name of PART_NAMES) {
      let bytes = 0
      for (const part of this.#stage.parts[name]) {
        part.check(this.#stopping.signal)
        if (part.pid === null) continue
        const own = residentBytes(part.pid)
        bytes += own
        if (name === 'ingestion' || name === 'consumer')
          this.resident[name].push({ pid: part.pid, atMs: Date.now(), bytes: own })
      }
      this.peakBytes[name] = Math.max(this.peakBytes[name], bytes)
    }
  }

  async #repeatedly(everyMs: number, look: () => void): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      look()
      await sleep(everyMs, signal).catch(() => undefined) // Stopped: the loop's condition sees it.
    }
  }
}
