/** A run of ids of which each is one more than the last. Positions count a symbol's events from its listing on. */
interface Epoch {
  readonly fromPosition: number
  readonly firstId: number
}

/** The ids of one sequence of events: contiguous, until the exchange begins to count anew. */
export class IdSequence {
  readonly #epochs: Epoch[]

  constructor(firstId: number) {
    this.#epochs = [{ fromPosition: 0, firstId }]
  }

  get epochCount(): number {
    return this.#epochs.length
  }

  /** From `position` on, which no event has reached, ids begin again at `firstId`. */
  restart(position: number, firstId: number): void {
    this.#epochs.push({ fromPosition: position, firstId })
  }

  idAt(position: number): number {
    for (let index = this.#epochs.length - 1; index > 0; index--) {
      const epoch = this.#epochs[index]
      if (epoch !== undefined && position >= epoch.fromPosition)
        return epoch.firstId + position - epoch.fromPosition
    }
    return (this.#epochs[0]?.firstId ?? 0) + position
  }

  /** @param epoch counted from 0; the latest unless given */
  epoch(epoch = this.#epochs.length - 1): Epoch & { readonly toPosition: number } {
    const found = this.#epochs[epoch]
    if (found === undefined) throw new RangeError(`There are ${this.#epochs.length} epochs, not ${epoch + 1}`)
    return { ...found, toPosition: this.#epochs[epoch + 1]?.fromPosition ?? Number.POSITIVE_INFINITY }
  }
}
