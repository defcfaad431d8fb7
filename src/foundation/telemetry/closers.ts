import { describeError } from '../runtime/errors.ts'

/**
 * Things to undo, run last in, first out. All run, also when some fail; the failures are thrown together.
 */
export class Closers {
  readonly #closers: Array<{ name: string; close: () => Promise<void> | void }> = []

  add(name: string, close: () => Promise<void> | void): void {
    this.#closers.push({ name, close })
  }

  async closeAll(): Promise<void> {
    const errors: unknown[] = []
    for (let closer = this.#closers.pop(); closer !== undefined; closer = this.#closers.pop()) {
      try {
        await closer.close()
      } catch (error) {
        errors.push(new Error(`${closer.name}: ${describeError(error)}`, { cause: error }))
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'Closing failed')
  }
}
