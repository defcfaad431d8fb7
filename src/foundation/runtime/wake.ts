import { type Clock, systemClock } from './clock.ts'

/** Wakes one waiting loop: a `ring` before `wait` is not lost, and several count as one. */
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

  /** Resolves at the next ring, or after `timeoutMs` if that comes first. */
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
