import type { Clock } from '../../src/foundation/runtime/clock.ts'

/**
 * The clock of one process: when it dies, nothing that it had scheduled happens any more; while it is stopped
 * (SIGSTOP), what falls due waits until it goes on.
 */
export class LifeClock implements Clock {
  readonly #clock: Clock
  readonly #bornMs: number
  isAlive = true
  #stoppedUntilMs = 0

  constructor(clock: Clock) {
    this.#clock = clock
    this.#bornMs = clock.monotonicMs()
  }

  get ageMs(): number {
    return this.#clock.monotonicMs() - this.#bornMs
  }

  monotonicMs(): number {
    return this.#clock.monotonicMs()
  }

  wallMicros(): number {
    return this.#clock.wallMicros()
  }

  schedule(delayMs: number, run: () => void): () => void {
    let cancel = this.#clock.schedule(delayMs, () => fire())
    const fire = () => {
      if (!this.isAlive) return
      const leftMs = this.stoppedForMs
      if (leftMs > 0) cancel = this.#clock.schedule(leftMs, fire)
      else run()
    }
    return () => cancel()
  }

  /** How long it will still be stopped; 0 when it runs. */
  get stoppedForMs(): number {
    return Math.max(0, this.#stoppedUntilMs - this.#clock.monotonicMs())
  }

  stopFor(ms: number): void {
    this.#stoppedUntilMs = Math.max(this.#stoppedUntilMs, this.#clock.monotonicMs() + ms)
  }

  die(): void {
    this.isAlive = false
  }
}
