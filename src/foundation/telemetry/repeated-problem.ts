import { describeError } from '../runtime/errors.ts'
import type { Logger } from './log.ts'

/** Logs repeated failures: the second in a row, once per reason, and the recovery. One is usual. */
export class RepeatedProblem {
  readonly #log: Logger
  readonly #what: string
  #reason: string | null = null
  #isTold = false

  /** @param what completes "… again" and "… failed" */
  constructor(log: Logger, what: string) {
    this.#log = log
    this.#what = what
  }

  failed(error: unknown): void {
    const reason = describeError(error)
    const isRepeated = this.#reason !== null
    const isNew = this.#reason !== reason
    this.#reason = reason
    const text = `${this.#what} failed, retrying: ${reason}`
    if (!isRepeated || (this.#isTold && !isNew)) {
      this.#log.debug({ err: error }, text)
      return
    }
    this.#isTold = true
    this.#log.warn({ err: error }, text)
  }

  worked(): void {
    if (this.#isTold) this.#log.info(`${this.#what} works again`)
    this.#isTold = false
    this.#reason = null
  }
}
