import { unlessAborted } from '../../foundation/runtime/backoff.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import { RepeatedProblem } from '../../foundation/telemetry/repeated-problem.ts'
import { type ForeignRows, type InstanceWatch, OvertakenError } from './instance-watch.ts'

/**
 * Checks for other instances, one check at a time. A broker that hangs delays only the next check.
 */
export class InstanceCheck {
  readonly #watch: Pick<InstanceWatch, 'check' | 'close'>
  readonly #rows: ForeignRows
  readonly #onOvertaken: (error: OvertakenError) => void
  readonly #stopping: AbortSignal
  readonly #problem: RepeatedProblem
  #running: Promise<void> | null = null

  constructor(
    watch: Pick<InstanceWatch, 'check' | 'close'>,
    rows: ForeignRows,
    onOvertaken: (error: OvertakenError) => void,
    stopping: AbortSignal,
    log: Logger,
  ) {
    this.#watch = watch
    this.#rows = rows
    this.#onOvertaken = onOvertaken
    this.#stopping = stopping
    this.#problem = new RepeatedProblem(log, 'Reading what other instances wrote')
  }

  /** Starts a check unless one is running. */
  begin(): void {
    this.#running ??= this.#check().finally(() => {
      this.#running = null
    })
  }

  /** Waits for the running check. Call it after the signal has aborted. */
  async close(): Promise<void> {
    await this.#running
    await this.#watch.close()
  }

  async #check(): Promise<void> {
    try {
      await unlessAborted(this.#watch.check(this.#rows), this.#stopping)
      this.#problem.worked()
    } catch (error) {
      if (this.#stopping.aborted) return
      if (error instanceof OvertakenError) this.#onOvertaken(error)
      else this.#problem.failed(error)
    }
  }
}
