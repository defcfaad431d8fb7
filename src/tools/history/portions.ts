/**
 * Reads items that come in portions, most of them without a promise.
 *
 *     for (let item = source.next() ?? (await source.more()); item !== null; …)
 */
export class Portions<Item> {
  readonly #source: AsyncIterator<readonly Item[]>
  #portion: readonly Item[] = []
  #at = 0

  constructor(source: AsyncIterable<readonly Item[]>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** @returns null if the portion has no more items: call {@link more} */
  next(): Item | null {
    return this.#portion[this.#at++] ?? null
  }

  /** Reads the next portion. @returns its first item; null if there is none */
  async more(): Promise<Item | null> {
    for (;;) {
      const { done, value } = await this.#source.next()
      if (done === true) return null
      this.#portion = value
      this.#at = 0
      const first = this.next()
      if (first !== null) return first
    }
  }

  async close(): Promise<void> {
    await this.#source.return?.()
  }
}
