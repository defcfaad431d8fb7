import type { Wake } from '../../foundation/runtime/clock.ts'

/** Takes one turn after the other until it is stopped. An error of a turn is a defect, and not caught. */
export class StoppableLoop {
  readonly #wake: Wake
  readonly #turn: () => Promise<void>
  readonly #stopping = new AbortController()
  #running: Promise<void> | null = null

  /** @param wake rings when a turn that waits must end */
  constructor(wake: Wake, turn: () => Promise<void>) {
    this.#wake = wake
    this.#turn = turn
  }

  /** Aborts when it is stopped. */
  get signal(): AbortSignal {
    return this.#stopping.signal
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Ends the running turn, and waits for its end. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    this.#wake.ring()
    await this.#running
  }

  async #run(): Promise<void> {
    while (!this.signal.aborted) {
      try {
        await this.#turn()
      } catch (error) {
        if (!this.signal.aborted) throw error
      }
    }
  }
}
