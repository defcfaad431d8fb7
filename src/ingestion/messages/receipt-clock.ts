import type { Clock } from '../../foundation/runtime/clock.ts'

/** The receipt time of a frame, taken right after parsing and before any queue. */
export interface ReceiptStamp {
  /** Integer milliseconds since the Unix epoch. */
  readonly ms: number
  /** Integer microseconds; strictly increasing in a process until its clock is set. */
  readonly us: number
}

/** What the wall clock should have shown, and what it showed; milliseconds since the Unix epoch. */
export interface ClockStep {
  readonly fromMs: number
  readonly toMs: number
  /** The total step back of several steps; a suspend between them looks like a step ahead. */
  readonly backMs?: number
}

/** Short, because after a freeze a frame may be stamped too late by up to this much. */
const TICK_MS = 250
const TICKS_PER_SECOND = 4

/** Limits in milliseconds above which the clock or the process counts as faulty. */
export interface ClockLimits {
  /** Difference between wall and monotonic time over a tick. */
  readonly stepMs: number
  /** A freeze of so long leaves frames in kernel buffers that would be stamped too late. */
  readonly freezeMs: number
}

export const CLOCK_LIMITS: ClockLimits = { stepMs: 1000, freezeMs: 2000 }

export interface ReceiptClockEvents {
  onSecond(): void
  /** Called when the process froze. Unread frames must be discarded. */
  onFreeze(stoodMs: number): void
  /** Called before the next stamp when the wall clock was set, or ran on during a suspend. */
  onStep(step: ClockStep): void
}

/**
 * Stamps receipts and detects when stamps cannot be right: the wall clock was set, the machine was
 * suspended, or the process froze. Checks before each stamp and on a timer, because after a freeze
 * Node may run socket callbacks before timers. Specification: P2, P3.
 *
 * In real data more than half of the trades share their receipt millisecond with a bookTicker of
 * the same symbol, and bookTicker has no other time. Only strictly increasing microseconds keep the
 * order of quote and trade. If the clock stands still or steps back by less than the limit, stamps
 * rise by one.
 */
export class ReceiptClock {
  readonly #clock: Clock
  readonly #limits: ClockLimits
  /** Null before the start. */
  #events: ReceiptClockEvents | null = null
  #tickedAtMs = 0
  /** Wall minus monotonic time at the last tick. */
  #offsetMs = 0
  #wallUs = 0
  #lastUs = 0
  #cancel: (() => void) | null = null

  constructor(clock: Clock, limits: ClockLimits) {
    this.#clock = clock
    this.#limits = limits
    this.#begin()
  }

  start(events: ReceiptClockEvents): void {
    this.#events = events
    this.#begin()
    this.#tickLater(1)
  }

  stop(): void {
    this.#cancel?.()
  }

  /** Stamps a frame that was just read; null if it waited in a buffer and must be discarded. */
  stampFrame(): ReceiptStamp | null {
    return this.#look() ? null : this.#stamp()
  }

  stamp(): ReceiptStamp {
    this.#look()
    return this.#stamp()
  }

  #stamp(): ReceiptStamp {
    this.#lastUs = Math.max(this.#lastUs + 1, this.#wallUs)
    return { ms: Math.floor(this.#wallUs / 1000), us: this.#lastUs }
  }

  #tickLater(tick: number): void {
    this.#cancel = this.#clock.schedule(TICK_MS, () => {
      this.#look()
      if (tick === TICKS_PER_SECOND) this.#events?.onSecond()
      this.#begin()
      this.#tickLater((tick % TICKS_PER_SECOND) + 1)
    })
  }

  /** Reads both clocks. @returns whether they or the process were faulty since the last time */
  #look(): boolean {
    const nowMs = this.#clock.monotonicMs()
    const wallUs = this.#clock.wallMicros()
    this.#wallUs = wallUs
    const stoodMs = nowMs - this.#tickedAtMs - TICK_MS
    // Several small steps back add up in the last stamp.
    const expectedMs = Math.max(this.#offsetMs + nowMs, this.#lastUs / 1000)
    const wallMs = wallUs / 1000
    if (Math.abs(wallMs - expectedMs) > this.#limits.stepMs) {
      this.#begin()
      this.#lastUs = 0
      this.#events?.onStep({ fromMs: expectedMs, toMs: wallMs })
      return true
    }
    if (stoodMs < this.#limits.freezeMs) return false
    this.#begin()
    this.#events?.onFreeze(stoodMs)
    return true
  }

  #begin(): void {
    this.#tickedAtMs = this.#clock.monotonicMs()
    this.#offsetMs = this.#clock.wallMicros() / 1000 - this.#tickedAtMs
  }
}
