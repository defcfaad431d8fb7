import type { Clock } from '../../foundation/runtime/clock.ts'

/** When a frame was received: taken right after it was parsed, before any queue. */
export interface ReceiptStamp {
  /** Integer milliseconds since the Unix epoch. */
  readonly ms: number
  /** Integer microseconds; strictly increasing over all streams of a process until its clock is set. */
  readonly us: number
}

/** What the wall clock would have shown at one moment, and what it did show. Milliseconds since the Unix epoch. */
export interface ClockStep {
  readonly fromMs: number
  readonly toMs: number
  /** How far it went back in all, where this stands for several steps; a suspend between them looks like one ahead. */
  readonly backMs?: number
}

/** Short, because a frame is stamped up to so much later than it came when the process stands still after a tick. */
const TICK_MS = 250
const TICKS_PER_SECOND = 4

/** From where on the clock or the process counts as faulty, in milliseconds. */
export interface ClockLimits {
  /** Difference between wall and monotonic time over a tick. */
  readonly stepMs: number
  /** A process that stood still for so long holds frames in kernel buffers that would be stamped too late. */
  readonly freezeMs: number
}

export const CLOCK_LIMITS: ClockLimits = { stepMs: 1000, freezeMs: 2000 }

export interface ReceiptClockEvents {
  onSecond(): void
  /** This process stood still. What waited to be read is to be discarded. */
  onFreeze(stoodMs: number): void
  /** The wall clock was set, or went on while the machine was suspended. Called before anything has a new stamp. */
  onStep(step: ClockStep): void
}

/**
 * Stamps receipts, and notices when they cannot be right: the wall clock was set, the machine was suspended, or the
 * process stood still. It looks before each stamp and on a timer, since after a stop Node may run the callbacks of
 * sockets before those of timers. Specification: P2, P3.
 *
 * In real data more than half of the trades share their receipt millisecond with a bookTicker of the same symbol, and
 * bookTicker has no other time: only strictly increasing microseconds keep the order of quote and trade. Where the
 * clock stands still or steps back by less than the limit, stamps rise by one.
 */
export class ReceiptClock {
  readonly #clock: Clock
  readonly #limits: ClockLimits
  readonly #events: ReceiptClockEvents
  #tickedAtMs = 0
  /** Wall minus monotonic time at the last tick. */
  #offsetMs = 0
  #wallUs = 0
  #lastUs = 0
  #cancel: (() => void) | null = null

  constructor(clock: Clock, limits: ClockLimits, events: ReceiptClockEvents) {
    this.#clock = clock
    this.#limits = limits
    this.#events = events
    this.#begin()
  }

  start(): void {
    this.#begin()
    this.#tickLater(1)
  }

  stop(): void {
    this.#cancel?.()
  }

  /** Stamps a frame that was just read; null where it had waited in a buffer, and is to be discarded. */
  stampFrame(): ReceiptStamp | null {
    return this.#look() ? null : this.#stamp()
  }

  /** Stamps what this process has fetched. */
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
      if (tick === TICKS_PER_SECOND) this.#events.onSecond()
      this.#begin()
      this.#tickLater((tick % TICKS_PER_SECOND) + 1)
    })
  }

  /** Reads both clocks. @returns whether they, or the process, were at fault since it last looked */
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
      this.#events.onStep({ fromMs: expectedMs, toMs: wallMs })
      return true
    }
    if (stoodMs < this.#limits.freezeMs) return false
    this.#begin()
    this.#events.onFreeze(stoodMs)
    return true
  }

  #begin(): void {
    this.#tickedAtMs = this.#clock.monotonicMs()
    this.#offsetMs = this.#clock.wallMicros() / 1000 - this.#tickedAtMs
  }
}
