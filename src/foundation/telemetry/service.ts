import { readFileSync } from 'node:fs'
import { type RetryPorts, sleep } from '../runtime/backoff.ts'
import { describeError } from '../runtime/errors.ts'
import type { Logger } from './log.ts'

/** What the parts of a service need from outside. */
export interface ServicePorts extends RetryPorts {
  readonly log: Logger
}

/** A service that runs until it is stopped or fails. */
export interface RunningService {
  readonly url: string
  /** Resolves with the error that ended it; never resolves when it is stopped. */
  readonly ended: Promise<unknown>
  /**
   * Stops taking input, delivers what is queued and closes. @param signal aborts when that takes too long
   * @throws TapelineError `STOPPED_DIRTY` saying how much was left and that a restart recovers it
   */
  stop(signal: AbortSignal): Promise<void>
}

const MANIFEST: unknown = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))

/** Tapeline's version, from its package. */
export const VERSION =
  typeof MANIFEST === 'object' && MANIFEST !== null && 'version' in MANIFEST
    ? String(MANIFEST.version)
    : 'unknown'

/** Closes resources, last in, first out. All closers run; failures are thrown together. */
export class Closers {
  readonly #closers: Array<{ name: string; close: () => Promise<void> | void }> = []

  add(name: string, close: () => Promise<void> | void): void {
    this.#closers.push({ name, close })
  }

  /** @param limitMs after which the remaining closers are called without waiting; infinite by default */
  async closeAll(limitMs = Number.POSITIVE_INFINITY): Promise<void> {
    const late = Number.isFinite(limitMs) ? sleep(limitMs) : null
    const errors: unknown[] = []
    for (let closer = this.#closers.pop(); closer !== undefined; closer = this.#closers.pop()) {
      try {
        await (late === null ? closer.close() : Promise.race([closer.close(), late]))
      } catch (error) {
        errors.push(new Error(`${closer.name}: ${describeError(error)}`, { cause: error }))
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'Closing failed')
  }
}
