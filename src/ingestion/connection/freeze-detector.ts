import type { Clock } from '../../foundation/runtime/clock.ts'

/** A process that was stopped, or hung, for longer holds frames in kernel buffers that would be stamped too late. */
const FREEZE_LIMIT_MS = 5000

const TICK_MS = 1000

/**
 * Notices that this process stood still. After a stop, Node may run the callbacks of sockets before those of timers, so
 * both are to ask: each frame before it is stamped, and a timer for when no frame comes. Specification: P2.
 */
export class FreezeDetector {
  readonly #clock: Clock
  readonly #onTick: () => void
  readonly #onFreeze: (stoodMs: number) => void
  #tickedAtMs: number
  #cancel: (() => void) | null = null

  /**
   * @param onTick called every second
   * @param onStandstill called with how long it stood, in milliseconds
   */
  constructor(clock: Clock, onTick: () => void, onFreeze: (stoodMs: number) => void) {
    this.#clock = clock
    this.#onTick = onTick
    this.#onFreeze = onFreeze
    this.#tickedAtMs = clock.monotonicMs()
  }

  start(): void {
    this.#tickedAtMs = this.#clock.monotonicMs()
    this.#cancel = this.#clock.schedule(TICK_MS, () => {
      // A frame may have noticed it already, and connections are opened anew.
      this.hasJustEnded()
      this.#onTick()
      this.start()
    })
  }

  /** Whether it has just stood still, as far as is known before the next tick. */
  hasJustEnded(): boolean {
    const stoodMs = this.#clock.monotonicMs() - this.#tickedAtMs - TICK_MS
    if (stoodMs < FREEZE_LIMIT_MS) return false
    this.#onFreeze(stoodMs)
    return true
  }

  stop(): void {
    this.#cancel?.()
  }
}
