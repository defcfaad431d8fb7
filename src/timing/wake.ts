/**
 * A bell for one waiting loop: `ring` before `wait` is not lost, several rings before a wait count as one.
 */
export class Wake {
  #rung = false
  #waiter: (() => void) | null = null

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
      const timer = timeoutMs === undefined ? null : setTimeout(() => this.ring(), timeoutMs)
      this.#waiter = () => {
        if (timer !== null) clearTimeout(timer)
        resolve()
      }
    })
  }
}
