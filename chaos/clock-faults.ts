import { sleep } from '../src/foundation/runtime/backoff.ts'
import type { ClockFault } from './faults.ts'
import type { Window } from './outages.ts'
import type { SupervisedPart } from './part.ts'
import type { Probe } from './probe.ts'

/** A period in which a service's wall clock was wrong. The bounds are in this machine's time. */
export interface WrongClock extends Window {
  readonly stepMs: number
}

export interface ClockStruck extends WrongClock {
  /** When the service was stopped or paused before its clock was wrong; null if it kept running. */
  readonly still: Window | null
}

/**
 * Shifts the clock of a service for a while, while it runs, restarts or is paused. Resolves when
 * the clock is right again.
 */
export async function strikeClock(
  part: SupervisedPart,
  probe: Probe,
  { kind, stepMs, stillMs, holdMs }: ClockFault,
  signal: AbortSignal,
  onBegin: (atMs: number) => void,
): Promise<ClockStruck> {
  let still: Window | null = null
  try {
    if (kind === 'step') {
      onBegin(Date.now())
      probe.setClock(stepMs)
    } else {
      const struck = await part.strike(
        kind === 'start' ? { kind: 'restart', holdMs: 0 } : { kind: 'pause', holdMs: stillMs },
        signal,
        onBegin,
        () => probe.setClock(stepMs),
      )
      still = { fromMs: struck.fromMs, toMs: struck.backMs }
    }
    const fromMs = still?.toMs ?? Date.now()
    await sleep(holdMs, signal)
    return { fromMs, toMs: Date.now(), stepMs, still }
  } finally {
    probe.setClock(0)
  }
}

/** Name in counts and reports: `ingestion clock +8h`. */
export function clockFaultName({ part, kind, stepMs }: ClockFault): string {
  const step = `${stepMs < 0 ? '-' : '+'}${shortDuration(Math.abs(stepMs))}`
  const what = { step: 'clock', start: 'start with clock', suspend: 'suspend with clock' }[kind]
  return `${part} ${what} ${step}`
}

function shortDuration(ms: number): string {
  if (ms % 3_600_000 === 0) return `${ms / 3_600_000}h`
  if (ms % 60_000 === 0) return `${ms / 60_000}m`
  return `${ms / 1000}s`
}
