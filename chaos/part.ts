import { sleep } from '../src/foundation/runtime/backoff.ts'
import { describeError } from '../src/foundation/runtime/errors.ts'
import type { Exit } from '../src/sandbox/processes/child-process.ts'
import { identify, isRunning, type ProcessIdentity } from '../src/sandbox/processes/process-identity.ts'
import type { ProcessFault } from './faults.ts'
import type { PartName } from './options.ts'

/** A running part: one process, or all processes of a native database. */
export interface PartProcess {
  /** Its main process. */
  readonly pid: number
  /** Sends SIGKILL to all its processes; resolves when they are gone. */
  kill(): Promise<void>
  /** Requests a shutdown. @returns the exit; null if unknown */
  stop(): Promise<Exit | null>
  /** Pauses or continues all its processes. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void
}

export interface PartEvents {
  /** Reports an error that no fault explains, as one sentence. */
  onViolation(sentence: string): void
  /** Reports a failed start that will be retried. */
  onFailedStart(sentence: string): void
  /** Reports a requested shutdown, with the age of the process. */
  onStopped(part: PartName, exit: Exit, ageMs: number): void
}

/** Start and end of a fault; wall-clock milliseconds. */
export interface Struck {
  readonly fromMs: number
  /** Just before the restart or continuation: the part did nothing until then. */
  readonly backMs: number
  /** When the part ran again. */
  readonly toMs: number
}

/** A fault of a part, without its time. */
export type PartFault = Pick<ProcessFault, 'kind' | 'holdMs'>

/** Unexpected exits after which the part is no longer restarted. */
const MOST_LOST_STARTS = 3
const MOST_ATTEMPTS = 3
const RETRY_MS = 1000

/**
 * A part under faults: kills, pauses and restarts it, one fault after the other, and restarts it
 * each time. It reports an unexpected exit as a violation and restarts the part.
 */
export class SupervisedPart {
  readonly name: PartName
  /** Name in reports: `broker 2` if there are several. */
  readonly label: string
  readonly #launch: () => Promise<PartProcess>
  readonly #events: PartEvents
  #process: PartProcess | null = null
  #identity: ProcessIdentity | null = null
  #busy: Promise<unknown> = Promise.resolve()
  #state: 'up' | 'down' | 'paused' = 'down'
  #lostStarts = 0
  #startedMs = 0
  /** When it has started; wall-clock milliseconds. */
  readonly starts: number[] = []

  constructor(name: PartName, launch: () => Promise<PartProcess>, events: PartEvents, label: string = name) {
    this.name = name
    this.label = label
    this.#launch = launch
    this.#events = events
  }

  get state(): 'up' | 'down' | 'paused' {
    return this.#state
  }

  /** Number of starts after the first. */
  get restarts(): number {
    return this.starts.length - 1
  }

  /** Main process; null while the part is down. */
  get pid(): number | null {
    return this.#process?.pid ?? null
  }

  /** Starts the part. Retries, since a start on a busy machine may take longer than its limit. */
  async start(signal: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        this.#process = await this.#launch()
        break
      } catch (error) {
        if (signal.aborted || attempt === MOST_ATTEMPTS) throw error
        this.#events.onFailedStart(`${this.label} failed to start: ${describeError(error)}`)
        await sleep(RETRY_MS, signal)
      }
    }
    this.#startedMs = performance.now()
    this.#identity = identify(this.#process.pid)
    this.#state = 'up'
    this.starts.push(Date.now())
  }

  /**
   * Carries out a fault after all earlier ones. Resolves when the part runs again.
   *
   * @param beforeBack called just before the part is restarted or continued
   */
  strike(
    fault: PartFault,
    signal: AbortSignal,
    onBegin: (atMs: number) => void,
    beforeBack: () => void = () => {},
  ): Promise<Struck> {
    const striking = this.#busy.then(async () => {
      signal.throwIfAborted()
      const fromMs = Date.now()
      onBegin(fromMs)
      const backMs = await this.#carryOut(fault, signal, beforeBack)
      return { fromMs, backMs, toMs: Date.now() }
    })
    this.#busy = striking.catch(() => undefined) // The caller gets the error.
    return striking
  }

  /** Checks whether the part still runs; call it about once a second. */
  check(signal: AbortSignal): void {
    if (this.#state !== 'up' || this.#identity === null || isRunning(this.#identity)) return
    this.#state = 'down'
    const pid = this.#process?.pid
    this.#process = null
    this.#events.onViolation(`${this.label} (process ${pid}) exited unexpectedly.`)
    if (++this.#lostStarts > MOST_LOST_STARTS) return
    this.#busy = this.#busy
      .then(() => (signal.aborted || this.#state !== 'down' ? undefined : this.start(signal)))
      .catch((error: unknown) => this.#events.onViolation(`${this.label} could not be restarted: ${error}`))
  }

  /** Waits for faults in progress, then stops the part. */
  async stop(): Promise<Exit | null> {
    await this.#busy
    return await this.#stopProcess()
  }

  /** Kills the part for good, even during a fault. Abort any pending start first. */
  async end(): Promise<void> {
    await this.#kill()
    await this.#busy
    await this.#kill()
  }

  async #kill(): Promise<void> {
    this.#state = 'down'
    const running = this.#process
    this.#process = null
    await running?.kill()
  }

  /** @returns the time of the restart or continuation */
  async #carryOut({ kind, holdMs }: PartFault, signal: AbortSignal, beforeBack: () => void): Promise<number> {
    if (kind === 'pause') return await this.#pause(holdMs, signal, beforeBack)
    if (kind === 'kill') await this.#kill()
    else await this.#stopProcess()
    await sleep(holdMs, signal)
    beforeBack()
    const backMs = Date.now()
    await this.start(signal)
    return backMs
  }

  async #pause(holdMs: number, signal: AbortSignal, beforeBack: () => void): Promise<number> {
    this.#state = 'paused'
    this.#process?.signal('SIGSTOP')
    try {
      await sleep(holdMs, signal)
      beforeBack()
      return Date.now()
    } finally {
      this.#process?.signal('SIGCONT')
      if (this.#process !== null) this.#state = 'up'
    }
  }

  async #stopProcess(): Promise<Exit | null> {
    this.#state = 'down'
    const running = this.#process
    this.#process = null
    const ageMs = performance.now() - this.#startedMs
    const exit = (await running?.stop()) ?? null
    if (exit !== null) this.#events.onStopped(this.name, exit, ageMs)
    return exit
  }
}
