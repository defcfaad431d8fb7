/** A run of consecutive ids. Positions count a symbol's events since its listing. */
interface Epoch {
  readonly fromPosition: number
  readonly firstId: number
}

/** Positions without events, since the symbol did not trade; the end is exclusive. */
interface Halt {
  readonly from: number
  to: number
}

/** The ids of one sequence of events: consecutive, until the exchange restarts them. */
export class IdSequence {
  readonly #epochs: Epoch[]
  /** In ascending order. The last may still be in effect. */
  readonly #halts: Halt[] = []

  constructor(firstId: number) {
    this.#epochs = [{ fromPosition: 0, firstId }]
  }

  get epochCount(): number {
    return this.#epochs.length
  }

  /** Restarts the ids at `firstId` from `position`, which no event has reached. */
  restart(position: number, firstId: number): void {
    this.#epochs.push({ fromPosition: position, firstId })
  }

  idAt(position: number): number {
    for (let index = this.#epochs.length - 1; index > 0; index--) {
      const epoch = this.#epochs[index]
      if (epoch !== undefined && position >= epoch.fromPosition)
        return epoch.firstId + this.eventsBetween(epoch.fromPosition, position)
    }
    return (this.#epochs[0]?.firstId ?? 0) + this.eventsBetween(0, position)
  }

  /** The last position before the ids restart after this one; infinite in the latest epoch. */
  lastOfEpochAt(position: number): number {
    const next = this.#epochs.find(({ fromPosition }) => fromPosition > position)
    return (next?.fromPosition ?? Number.POSITIVE_INFINITY) - 1
  }

  /** Halts the sequence from `position`, which no event has reached, until {@link resume}. */
  halt(position: number): void {
    this.#halts.push({ from: position, to: Number.POSITIVE_INFINITY })
  }

  resume(position: number): void {
    const halt = this.#halts.at(-1)
    if (halt !== undefined) halt.to = position
  }

  eventsBetween(from: number, to: number): number {
    let count = to - from
    for (const halt of this.#halts) count -= Math.max(0, Math.min(halt.to, to) - Math.max(halt.from, from))
    return count
  }

  /** The position of the event that follows `events` others after `from`. */
  positionAfter(from: number, events: number): number {
    let position = from + events
    for (const halt of this.#halts) {
      const begin = Math.max(halt.from, from)
      if (halt.to > begin && begin <= position) position += halt.to - begin
    }
    return position
  }

  /** @param epoch counted from 0; default: the latest */
  epoch(epoch = this.#epochs.length - 1): Epoch & { readonly toPosition: number } {
    const found = this.#epochs[epoch]
    if (found === undefined) throw new RangeError(`There are ${this.#epochs.length} epochs, not ${epoch + 1}`)
    return { ...found, toPosition: this.#epochs[epoch + 1]?.fromPosition ?? Number.POSITIVE_INFINITY }
  }
}
