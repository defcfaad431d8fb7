import type { IngestionStatus } from '../src/foundation/telemetry/status.ts'
import type { Incident } from './faults.ts'
import type { Window } from './outages.ts'
import type { Observation } from './watch.ts'

/** Shorter ones say more of the looking than of Kafka. */
const SHORTEST_MS = 1000

/** The times in which Kafka acknowledged nothing although ingestion had something for it, or was gone. */
export class Acknowledgements {
  readonly #silences: Window[] = []
  #lastMs: number | null = null
  #acknowledged = 0

  /** To be called for every answer of ingestion, and for every time that it gave none. */
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

  /** From the last answer in which Kafka had acknowledged something until the first in which it had again. */
  silences(): readonly Window[] {
    return this.#silences
  }
}

/** Durations in milliseconds, looked at four times a second. */
export interface AcknowledgementFigures {
  /** While ingestion itself was not struck. */
  readonly longest: SilenceFigures | null
  /** While it was. */
  readonly longestWhileStruck: SilenceFigures | null
  /** How many lasted a second and longer. */
  readonly count: number
}

export interface SilenceFigures {
  readonly ms: number
  readonly from: string
  /** Faults that held at that time, or had just been over. */
  readonly during: readonly string[]
}

/** What just before has stopped ingestion may still keep it from sending. */
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
