import type { IngestionStatus } from '../src/foundation/telemetry/status.ts'
import type { Incident } from './faults.ts'
import type { Window } from './outages.ts'
import type { Observation } from './watch.ts'

/** Shorter silences reflect the polling interval rather than Kafka. */
const SHORTEST_MS = 1000

/**
 * Records the periods in which Kafka acknowledged nothing although ingestion had events for it or
 * was down.
 */
export class Acknowledgements {
  readonly #silences: Window[] = []
  #lastMs: number | null = null
  #acknowledged = 0

  /** Call it for every poll of ingestion, answered or not. */
  observe({ atMs, status }: Observation<IngestionStatus>): void {
    if (status === null) return
    const { acknowledged, queued, inFlight } = status.counters
    // A new process counts from 0.
    const isNews = acknowledged !== this.#acknowledged && acknowledged > 0
    this.#acknowledged = acknowledged
    if (!isNews && queued + inFlight > 0) return
    if (this.#lastMs !== null && atMs - this.#lastMs >= SHORTEST_MS)
      this.#silences.push({ fromMs: this.#lastMs, toMs: atMs })
    this.#lastMs = atMs
  }

  /** Each from the last answer with new acknowledgements to the next one. */
  silences(): readonly Window[] {
    return this.#silences
  }
}

/** Durations in milliseconds, polled four times a second. */
export interface AcknowledgementFigures {
  /** The longest without a fault of ingestion. */
  readonly longest: SilenceFigures | null
  /** The longest during a fault of ingestion. */
  readonly longestWhileStruck: SilenceFigures | null
  /** Number of silences of at least one second. */
  readonly count: number
}

export interface SilenceFigures {
  readonly ms: number
  readonly from: string
  /** Faults active at that time, or just before it. */
  readonly during: readonly string[]
}

/** A fault may keep ingestion from sending for this long after its end. */
const AFTERMATH_MS = 15_000

export function acknowledgementFigures(
  silences: readonly Window[],
  incidents: readonly Incident[],
): AcknowledgementFigures {
  const all = silences
    .map(({ fromMs, toMs }) => {
      const during = incidents.filter(
        ({ from, to }) => Date.parse(from) < toMs && Date.parse(to) > fromMs - AFTERMATH_MS,
      )
      return {
        ms: toMs - fromMs,
        from: new Date(fromMs).toISOString(),
        during: [...new Set(during.map(({ name }) => name))],
      }
    })
    .sort((a, b) => b.ms - a.ms)
  const isStruck = ({ during }: SilenceFigures) => during.some((name) => name.startsWith('ingestion'))
  return {
    longest: all.find((one) => !isStruck(one)) ?? null,
    longestWhileStruck: all.find(isStruck) ?? null,
    count: all.length,
  }
}
