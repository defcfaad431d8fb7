import { type Clock, systemClock } from './clock.ts'

/**
 * A bell for one waiting loop: `ring` before `wait` is not lost, several rings before a wait count as one.
 */
export class Wake {
  readonly #clock: Pick<Clock, 'schedule'>
  #rung = false
  #waiter: (() => void) | null = null

  constructor(clock: Pick<Clock, 'schedule'> = systemClock()) {
    this.#clock = clock
  }

  ring(): void {
    const waiter = this.#waiter
    this.#waiter = null
    if (waiter === null) this.#rung = true
    else waiter()
  }

  /** Resolves at the next ring, or after `timeoutMs` where that comes first. */
  wait(timeoutMs?: number): Promise<void> {
    if (this.#rung) {
      this.#rung = false
      return Promise.resolve()
    }
    return new Promise((resolve) => {
      const cancel = timeoutMs === undefined ? null : this.#clock.schedule(timeoutMs, () => this.ring())
      this.#waiter = () => {
        cancel?.()
        resolve()
      }
    })
  }
}
