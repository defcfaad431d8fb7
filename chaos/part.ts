import { sleep } from '../src/foundation/runtime/backoff.ts'
import { describeError } from '../src/foundation/runtime/errors.ts'
import type { Exit } from '../src/sandbox/processes/child-process.ts'
import { identify, isRunning, type ProcessIdentity } from '../src/sandbox/processes/process-identity.ts'
import type { ProcessFault } from './faults.ts'
import type { PartName } from './options.ts'

/** A part that runs: one process, or for a native database all of its processes. */
export interface PartProcess {
  /** Its main process. */
  readonly pid: number
  /** SIGKILL to all of it; resolves when it is gone. */
  kill(): Promise<void>
  /** Asks it to stop. @returns how it ended; null where that is not known */
  stop(): Promise<Exit | null>
  /** Stops or continues all of it. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void
}

export interface PartEvents {
  /** Something is wrong that no fault explains, as one sentence. */
  onViolation(sentence: string): void
  /** A start has failed and will be tried again. */
  onFailedStart(sentence: string): void
  /** It has been asked to stop, `ageMs` after its start, and has stopped. */
  onStopped(part: PartName, exit: Exit, ageMs: number): void
}

/** When a fault began and ended; milliseconds of the wall clock. */
export interface Struck {
  readonly fromMs: number
  /** Just before it was started or continued: it did nothing until then. */
  readonly backMs: number
  /** When it ran again. */
  readonly toMs: number
}

/** A fault of a part, apart from its time. */
export type PartFault = Pick<ProcessFault, 'kind' | 'holdMs'>

/** Starts in a row that may fail before the part is given up. */
const MOST_LOST_STARTS = 3
const MOST_ATTEMPTS = 3
const RETRY_MS = 1000

/**
 * A part under faults: kills, pauses and restarts it, one fault after the other, and sees to it that it runs again. What
 * ends without having been told to is told as a violation and started again.
 */
export class SupervisedPart {
  readonly name: PartName
  /** As it is shown: `broker 2` where there are several. */
  readonly label: string
  readonly #launch: () => Promise<PartProcess>
  readonly #events: PartEvents
  #process: PartProcess | null = null
  #identity: ProcessIdentity | null = null
  #busy: Promise<unknown> = Promise.resolve()
  #state: 'up' | 'down' | 'paused' = 'down'
  #lostStarts = 0
  #startedMs = 0
  /** How often it was started after the first time. */
  restarts = -1

  constructor(name: PartName, launch: () => Promise<PartProcess>, events: PartEvents, label: string = name) {
    this.name = name
    this.label = label
    this.#launch = launch
    this.#events = events
  }

  get state(): 'up' | 'down' | 'paused' {
    return this.#state
  }

  /** Of its main process; null while it is down. */
  get pid(): number | null {
    return this.#process?.pid ?? null
  }

  /** Starts it. On a machine that is busy with other things a start may take longer than its limit: it is tried again. */
  async start(signal: AbortSignal): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        this.#process = await this.#launch()
        break
      } catch (error) {
        if (signal.aborted || attempt === MOST_ATTEMPTS) throw error
        this.#events.onFailedStart(`${this.label} has not started: ${describeError(error)}`)
        await sleep(RETRY_MS, signal)
      }
    }
    this.#startedMs = performance.now()
    this.#identity = identify(this.#process.pid)
    this.#state = 'up'
    this.restarts++
  }

  /**
   * Carries out a fault once those before it are over. Resolves when the part runs again.
   *
   * @param beforeBack called while it is down or stands still, just before it runs again
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
    this.#busy = striking.catch(() => undefined) // Whoever struck is told.
    return striking
  }

  /** Looks whether it still runs; to be called every second or so. */
  check(signal: AbortSignal): void {
    if (this.#state !== 'up' || this.#identity === null || isRunning(this.#identity)) return
    this.#state = 'down'
    const pid = this.#process?.pid
    this.#process = null
    this.#events.onViolation(`${this.label} (process ${pid}) ended by itself, without having been told to.`)
    if (++this.#lostStarts > MOST_LOST_STARTS) return
    this.#busy = this.#busy
      .then(() => (signal.aborted || this.#state !== 'down' ? undefined : this.start(signal)))
      .catch((error: unknown) =>
        this.#events.onViolation(`${this.label} could not be started again: ${error}`),
      )
  }

  /** Waits for faults that are under way, and stops it. */
  async stop(): Promise<Exit | null> {
    await this.#busy
    return await this.#stopProcess()
  }

  /** Kills it for good, whatever is under way; what was about to start it must have been aborted. */
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

  /** @returns when it came back */
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
