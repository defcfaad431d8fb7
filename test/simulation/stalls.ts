import type { FaultOf } from '../../src/sandbox/simulator/faults/fault-registry.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'

/** A stall of the exchange, and ingestion's reaction. */
export interface Stall {
  readonly fault: FaultOf<'stall'>
  readonly sinceMs: number
  untilMs: number
  /** When it first and last swallowed a frame: undetectable while its symbol does not trade. */
  firstStruckMs: number | null
  lastStruckMs: number
  /** When ingestion resubscribed or reconnected because of it. */
  noticedAtMs: number | null
}

/** A process that has seen little more than a burst does not know yet how slow a stream is. */
const YOUNG_MS = 600_000

/** The stalls of an exchange, and ingestion's reactions. */
export class StallWatch {
  /** By the id of the fault. */
  readonly all = new Map<number, Stall>()
  /** Needless resubscriptions, one sentence each. */
  readonly falseAlarms: string[] = []
  readonly #clock: VirtualClock

  constructor(clock: VirtualClock) {
    this.#clock = clock
  }

  began(fault: FaultOf<'stall'>): void {
    const nowMs = this.#clock.monotonicMs()
    const times = { sinceMs: nowMs, untilMs: Number.POSITIVE_INFINITY, lastStruckMs: nowMs }
    this.all.set(fault.id, { fault, ...times, firstStruckMs: null, noticedAtMs: null })
  }

  ended(id: number): void {
    const stall = this.all.get(id)
    if (stall !== undefined) stall.untilMs = this.#clock.monotonicMs()
  }

  struck(id: number): void {
    const stall = this.all.get(id)
    if (stall === undefined) return
    stall.lastStruckMs = this.#clock.monotonicMs()
    stall.firstStruckMs ??= stall.lastStruckMs
  }

  /** Records a resubscription by a process of this age. @returns the stall that it heals, if any */
  resubscribed(stream: string, ageMs: number): FaultOf<'stall'> | null {
    const nowMs = this.#clock.monotonicMs()
    const stalls = [...this.all.values()]
    const stall = stalls.findLast((one) => one.fault.spec.stream === stream && one.untilMs >= nowMs)
    if (stall === undefined) {
      const ended = stalls.some(
        (one) => (one.fault.spec.stream ?? stream) === stream && nowMs - one.untilMs < 60_000,
      )
      if (!ended && ageMs > YOUNG_MS)
        this.falseAlarms.push(`${stream} was needlessly resubscribed at ${nowMs}`)
      return null
    }
    stall.noticedAtMs ??= nowMs
    return stall.fault.spec.healedBy === 'resubscribe' ? stall.fault : null
  }

  /** Records the close of the last connection, opened then: the frames held back are known to be missing. */
  silencedSince(openedAtMs: number): void {
    const nowMs = this.#clock.monotonicMs()
    for (const stall of this.all.values())
      if (stall.untilMs > nowMs && stall.sinceMs >= openedAtMs) stall.noticedAtMs ??= nowMs
  }
}
