import { sleep } from '../runtime/backoff.ts'
import { describeError } from '../runtime/errors.ts'

/**
 * Closes resources, last in, first out. All closers run, even if some fail or hang; the failures
 * are thrown together.
 */
export class Closers {
  readonly #closers: Array<{ name: string; close: () => Promise<void> | void }> = []

  add(name: string, close: () => Promise<void> | void): void {
    this.#closers.push({ name, close })
  }

  /**
   * @param limitMs for all closers together: after it, the remaining ones are called without
   *   waiting; infinite by default
   */
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
