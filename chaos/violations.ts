/** Violations, one sentence each. Repeated sentences are kept once; very many are only counted. */
export class Violations {
  readonly #sentences = new Set<string>()
  readonly #onFirst: (sentence: string) => void
  #more = 0

  /** @param onFirst called for each new sentence */
  constructor(onFirst: (sentence: string) => void) {
    this.#onFirst = onFirst
  }

  add(...sentences: readonly string[]): void {
    for (const sentence of sentences) {
      if (this.#sentences.has(sentence)) continue
      if (this.#sentences.size >= MOST_KEPT) {
        this.#more++
        continue
      }
      this.#sentences.add(sentence)
      this.#onFirst(sentence)
    }
  }

  get count(): number {
    return this.#sentences.size + this.#more
  }

  list(): string[] {
    return [...this.#sentences, ...(this.#more === 0 ? [] : [`${this.#more} further violations.`])]
  }
}

const MOST_KEPT = 40
