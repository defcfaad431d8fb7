import type { ConsumerStatus, IngestionStatus } from '../src/foundation/telemetry/status.ts'
import type { Observation } from './watch.ts'

export type ServiceName = 'ingestion' | 'consumer'
/** What must recover from a fault; `archive`: all its processes. */
export type Concerned = ServiceName | 'archive'

type IngestionProgress = Pick<IngestionStatus, 'streams' | 'oldestUnacknowledgedMs'>
type ConsumerProgress = Pick<ConsumerStatus, 'uptimeMs'> & {
  readonly counters: Pick<ConsumerStatus['counters'], 'inserted' | 'alreadyThere'>
}

/** Duration of one fault. Milliseconds. */
export interface Recovery {
  readonly kind: string
  /** How long the fault lasted, or the part was down or paused. */
  readonly heldMs: number
  /** From its beginning to full recovery. */
  readonly toHealthyMs: number
}

interface Pending {
  readonly kind: string
  readonly fromMs: number
  overMs: number | null
  readonly waitingFor: Set<Concerned>
  /** Rows stored when the consumer, or its replacement, first answered after the fault. */
  stored: { readonly byProcessOfMs: number; readonly rows: number } | null
}

/** Kafka accepts messages if none has waited longer than this. */
const PRODUCING_MS = 2000
/** Tolerance of a process's start time, which is derived from its answers. */
const SAME_START_MS = 2500

/**
 * Measures the time from a fault to full recovery. First the fault ends and the part runs again.
 * Then each affected service answers 200 and data flows. For ingestion: every stream has delivered
 * since, and Kafka acknowledges. For the consumer: it has stored rows since. For the archive: it is
 * ready, so it has committed since a failure.
 */
export class Recoveries {
  readonly #pending = new Set<Pending>()
  readonly #done: Recovery[] = []

  /** @returns a function to call with the time when the fault is over */
  begin(kind: string, concerns: readonly Concerned[], fromMs: number): (overMs: number) => void {
    const pending: Pending = { kind, fromMs, overMs: null, waitingFor: new Set(concerns), stored: null }
    this.#pending.add(pending)
    return (overMs) => {
      pending.overMs = overMs
    }
  }

  ingestion({ atMs, ready, status }: Observation<IngestionProgress>): void {
    if (!ready || status === null || status.oldestUnacknowledgedMs > PRODUCING_MS) return
    const ages = Object.values(status.streams).map(
      ({ lastSeenAgeMs }) => lastSeenAgeMs ?? Number.POSITIVE_INFINITY,
    )
    const freshSinceMs = ages.length === 0 ? 0 : atMs - Math.max(...ages)
    for (const pending of this.#over(atMs)) {
      if (freshSinceMs >= (pending.overMs ?? atMs)) this.#well(pending, 'ingestion', atMs)
    }
  }

  consumer({ atMs, ready, status }: Observation<ConsumerProgress>): void {
    if (!ready || status === null) return
    const { inserted, alreadyThere } = status.counters
    const stored = inserted + alreadyThere
    const startedMs = atMs - status.uptimeMs
    for (const pending of this.#over(atMs)) {
      // A process that started after the fault, or after the one observed first, counts from 0.
      const isNew = startedMs > (pending.stored?.byProcessOfMs ?? pending.fromMs) + SAME_START_MS
      if (pending.stored === null || isNew)
        pending.stored = { byProcessOfMs: startedMs, rows: isNew ? 0 : stored }
      if (stored > pending.stored.rows) this.#well(pending, 'consumer', atMs)
    }
  }

  /** @param ready whether every process of the archive is */
  archive(atMs: number, ready: boolean): void {
    if (ready) for (const pending of this.#over(atMs)) this.#well(pending, 'archive', atMs)
  }

  done(): readonly Recovery[] {
    return this.#done
  }

  /** Kinds of faults that are not fully recovered yet. */
  unhealed(): string[] {
    return [...this.#pending].map(({ kind, waitingFor }) => `${kind} (${[...waitingFor].join(' and ')})`)
  }

  #over(atMs: number): Pending[] {
    return [...this.#pending].filter(({ overMs }) => overMs !== null && overMs <= atMs)
  }

  #well(pending: Pending, service: Concerned, atMs: number): void {
    pending.waitingFor.delete(service)
    if (pending.waitingFor.size > 0) return
    this.#pending.delete(pending)
    const { kind, fromMs, overMs } = pending
    this.#done.push({ kind, heldMs: (overMs ?? fromMs) - fromMs, toHealthyMs: atMs - fromMs })
  }
}
