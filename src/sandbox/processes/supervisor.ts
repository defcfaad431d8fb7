import { type BackoffPolicy, delayFor, sleep } from '../../foundation/runtime/backoff.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import { describeExit, type Exit, type RunningProcess } from './child-process.ts'
import type { Role } from './process-registry.ts'

/** A part of the local stack: how to start it, and when not to restart it. */
export interface Part<Started extends RunningProcess = RunningProcess> {
  readonly name: Role
  /** Resolves when the part is ready. If it fails or is aborted, it ends what it has started. */
  start(signal: AbortSignal): Promise<Started>
  /** Called after an unexpected end. Returns why a restart cannot help, or null. */
  hopeless?(exit: Exit): Error | null
  /** Whether the part has ended as intended, so that it is not restarted. */
  finished?(exit: Exit): boolean
}

export interface SupervisorEvents {
  /** A part has ended, or its restart failed. It will be started in `delayMs`. */
  onRestart(name: Role, why: string, delayMs: number): void
  onRestarted(name: Role): void
  onFinished(name: Role): void
  /** A part cannot be kept running. The caller must stop everything. */
  onFatal(error: Error): void
}

const RESTART_BACKOFF: BackoffPolicy = { initialMs: 1000, maxMs: 30_000 }
/** After running this long, a part has recovered: its next restart uses the shortest delay. */
const STABLE_MS = 60_000

/** Keeps parts running until the stop, and then stops them in the caller's order. */
export class Supervisor {
  readonly #events: SupervisorEvents
  readonly #backoff: BackoffPolicy
  readonly #stopping = new AbortController()
  readonly #running = new Map<Role, RunningProcess>()
  readonly #watchers = new Set<Promise<void>>()
  #restarts = 0

  constructor(events: SupervisorEvents, backoff: BackoffPolicy = RESTART_BACKOFF) {
    this.#events = events
    this.#backoff = backoff
  }

  get restarts(): number {
    return this.#restarts
  }

  get stopping(): AbortSignal {
    return this.#stopping.signal
  }

  isRunning(name: Role): boolean {
    return this.#running.has(name)
  }

  /** Starts a part and keeps it running. Rejects when the first start fails, or after a stop. */
  async run<Started extends RunningProcess>(part: Part<Started>): Promise<Started> {
    this.#stopping.signal.throwIfAborted()
    const started = await part.start(this.#stopping.signal)
    this.#running.set(part.name, started)
    const watcher = this.#watch(part, started).finally(() => this.#watchers.delete(watcher))
    this.#watchers.add(watcher)
    return started
  }

  /** Prevents further starts and aborts those in progress. Running parts are not stopped. */
  beginStop(): void {
    if (!this.#stopping.signal.aborted) this.#stopping.abort(new Error('stopping'))
  }

  /** Stops a part; null when it is not running. Only after `beginStop`. */
  async stop(name: Role): Promise<Exit | null> {
    const running = this.#running.get(name)
    if (running === undefined) return null
    const exit = await running.stop()
    this.#running.delete(name)
    return exit
  }

  /** Stops parts that still run, such as one whose start ended as the stop began. */
  async stopRest(): Promise<void> {
    await Promise.all(this.#watchers)
    await Promise.all([...this.#running.keys()].map((name) => this.stop(name)))
  }

  killAll(): void {
    this.beginStop()
    for (const running of this.#running.values()) running.kill()
  }

  async #watch(part: Part, first: RunningProcess): Promise<void> {
    const { signal } = this.#stopping
    let running: RunningProcess | null = first
    let startedMs = performance.now()
    let failures = 0
    let why = ''
    while (!signal.aborted) {
      if (running !== null) {
        const exit = await running.exited
        if (signal.aborted) return
        this.#running.delete(part.name)
        if (this.#isOver(part, exit)) return
        if (performance.now() - startedMs > STABLE_MS) failures = 0
        why = describeExit(exit)
      }
      failures += 1
      this.#restarts += 1
      const delayMs = delayFor(failures, this.#backoff, Math.random())
      this.#events.onRestart(part.name, why, delayMs)
      try {
        await sleep(delayMs, signal)
        running = await part.start(signal)
        startedMs = performance.now()
        this.#running.set(part.name, running)
        this.#events.onRestarted(part.name)
      } catch (error) {
        running = null
        why = describeError(error)
      }
    }
  }

  #isOver(part: Part, exit: Exit): boolean {
    if (part.finished?.(exit) === true) {
      this.#events.onFinished(part.name)
      return true
    }
    const hopeless = part.hopeless?.(exit) ?? null
    if (hopeless !== null) this.#events.onFatal(hopeless)
    return hopeless !== null
  }
}
