import { sleep } from '../runtime/backoff.ts'
import { describeError } from '../runtime/errors.ts'

/**
 * Things to undo, run last in, first out. All run, also when some fail or hang; the failures are thrown together.
 */
export class Closers {
  readonly #closers: Array<{ name: string; close: () => Promise<void> | void }> = []

  add(name: string, close: () => Promise<void> | void): void {
    this.#closers.push({ name, close })
  }

  /** @param limitMs for all together: those that are left by then are called and not waited for; infinite when not given */
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
