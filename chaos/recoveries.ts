import type { ConsumerStatus, IngestionStatus } from '../src/foundation/telemetry/status.ts'
import type { Observation } from './watch.ts'

export type ServiceName = 'ingestion' | 'consumer'

/** How long one fault took. Milliseconds. */
export interface Recovery {
  readonly kind: string
  /** How long the fault itself held, or the part was down or still. */
  readonly heldMs: number
  /** From its beginning until all is well. */
  readonly toHealthyMs: number
}

interface Pending {
  readonly kind: string
  readonly fromMs: number
  overMs: number | null
  readonly waitingFor: Set<ServiceName>
  /** What the consumer had stored when it, or the process in its place, was first seen after the fault. */
  stored: { readonly byProcessOfMs: number; readonly rows: number } | null
}

/** Kafka takes what is sent when nothing has been waiting for it longer. */
const PRODUCING_MS = 2000
/** When a process began is known from its answers, which take their time. */
const SAME_START_MS = 2500

/**
 * Measures how long it takes from a fault until all is well: the fault is over and the part runs again, and then each
 * service that it concerns answers 200 and shows that data flows. For ingestion: every stream has delivered since, and
 * Kafka acknowledges. For the consumer: it has stored something since.
 */
export class Recoveries {
  readonly #pending = new Set<Pending>()
  readonly #done: Recovery[] = []

  /** @returns to be called when the fault is over, with the time */
  begin(kind: string, concerns: readonly ServiceName[], fromMs: number): (overMs: number) => void {
    const pending: Pending = { kind, fromMs, overMs: null, waitingFor: new Set(concerns), stored: null }
    this.#pending.add(pending)
    return (overMs) => {
      pending.overMs = overMs
    }
  }

  ingestion({ atMs, ready, status }: Observation<IngestionStatus>): void {
    if (!ready || status === null || status.oldestUnacknowledgedMs > PRODUCING_MS) return
    const ages = Object.values(status.streams).map(
      ({ lastSeenAgeMs }) => lastSeenAgeMs ?? Number.POSITIVE_INFINITY,
    )
    const freshSinceMs = ages.length === 0 ? 0 : atMs - Math.max(...ages)
    for (const pending of this.#over(atMs)) {
      if (freshSinceMs >= (pending.overMs ?? atMs)) this.#well(pending, 'ingestion', atMs)
    }
  }

  consumer({ atMs, ready, status }: Observation<ConsumerStatus>): void {
    if (!ready || status === null) return
    const { inserted, alreadyThere } = status.counters
    const stored = inserted + alreadyThere
    const startedMs = atMs - status.uptimeMs
    for (const pending of this.#over(atMs)) {
      // A process that began after the fault, or after the one that was seen first, counts from 0.
      const isNew = startedMs > (pending.stored?.byProcessOfMs ?? pending.fromMs) + SAME_START_MS
      if (pending.stored === null || isNew)
        pending.stored = { byProcessOfMs: startedMs, rows: isNew ? 0 : stored }
      if (stored > pending.stored.rows) this.#well(pending, 'consumer', atMs)
    }
  }

  done(): readonly Recovery[] {
    return this.#done
  }

  /** Kinds of faults of which not all is well yet. */
  unhealed(): string[] {
    return [...this.#pending].map(({ kind, waitingFor }) => `${kind} (${[...waitingFor].join(' and ')})`)
  }

  #over(atMs: number): Pending[] {
    return [...this.#pending].filter(({ overMs }) => overMs !== null && overMs <= atMs)
  }

  #well(pending: Pending, service: ServiceName, atMs: number): void {
    pending.waitingFor.delete(service)
    if (pending.waitingFor.size > 0) return
    this.#pending.delete(pending)
    const { kind, fromMs, overMs } = pending
    this.#done.push({ kind, heldMs: (overMs ?? fromMs) - fromMs, toHealthyMs: atMs - fromMs })
  }
}
