import { describeWithFix } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'

/** A failure that lasts is logged this often. */
const REPEAT_LOG_MS = 60_000

/** Files that are being written have random names, so that texts of one failure differ. */
const RANDOM_NAMES = /[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/g

/** Failures of the archive's folder or bucket. Logs each once, and again after a minute. */
export class StoreProblem {
  readonly #log: Logger
  readonly #loggedAtMs = new Map<string, number>()
  #reason: string | null = null

  constructor(log: Logger) {
    this.#log = log
  }

  /** What failed, and the fix; null when nothing has failed since it last worked. */
  get reason(): string | null {
    return this.#reason
  }

  /** @param what such as "Writing a segment failed" */
  failed(what: string, error: unknown, nowMs: number): void {
    const reason = `${what}: ${describeWithFix(error)}`
    this.#reason = reason
    const key = reason.replaceAll(RANDOM_NAMES, '')
    for (const [known, atMs] of this.#loggedAtMs)
      if (nowMs - atMs >= REPEAT_LOG_MS) this.#loggedAtMs.delete(known)
    if (this.#loggedAtMs.has(key)) return
    this.#loggedAtMs.set(key, nowMs)
    this.#log.error({ err: error }, `${what}, retrying: ${describeWithFix(error)}`)
  }

  worked(): void {
    if (this.#reason === null) return
    this.#reason = null
    this.#loggedAtMs.clear()
    this.#log.info('The archive can be written again')
  }
}
