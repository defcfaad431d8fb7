import { IdSequence } from '../market/id-sequence.ts'
import { type IdType, REST_ROWS } from '../market/stream-data.ts'

/** Maps recorded ids of one sequence to the shown ones. They differ after a restart. */
export class ReplayIds {
  readonly #shown = new IdSequence(0)
  #lastRecorded: number | undefined
  #firstIdOfNext: number | undefined

  get epochCount(): number {
    return this.#shown.epochCount
  }

  /** Restarts the ids. If nothing has been played yet, the next event begins the new run. */
  restart(firstId: number): void {
    if (this.#lastRecorded === undefined) this.#firstIdOfNext = firstId
    else this.#shown.restart(this.#lastRecorded + 1, firstId)
  }

  played(recorded: number): void {
    if (this.#firstIdOfNext !== undefined) this.#shown.restart(recorded, this.#firstIdOfNext)
    this.#firstIdOfNext = undefined
    this.#lastRecorded = Math.max(this.#lastRecorded ?? recorded, recorded)
  }

  /** Negative ids mark rows that the exchange has invalidated, and are not changed. */
  shown(recorded: number): number {
    return recorded < 0 ? recorded : this.#shown.idAt(recorded)
  }

  /**
   * Recorded ids of a run: the first, the one after the last, and their difference from the shown
   * ones.
   */
  epoch(epoch?: number): { readonly from: number; readonly to: number; readonly offset: number } {
    const { fromPosition, toPosition, firstId } = this.#shown.epoch(epoch)
    return { from: fromPosition, to: toPosition, offset: firstId - fromPosition }
  }
}

/** The sequences of all symbols. */
export class AllReplayIds {
  readonly #sequences = new Map<string, ReplayIds>()
  #restarted = false

  of(symbol: string, type: IdType): ReplayIds {
    const key = `${type} ${symbol}`
    const ids = this.#sequences.get(key) ?? new ReplayIds()
    this.#sequences.set(key, ids)
    return ids
  }

  restart(symbol: string, type: IdType, firstId: number): void {
    this.#restarted = true
    this.of(symbol, type).restart(firstId)
  }

  /** Replaces the ids in the text of an event by the shown ones. All other bytes stay unchanged. */
  rewritten(type: IdType, symbol: string, text: string): string {
    if (!this.#restarted) return text
    return REST_ROWS[type].ids.reduce(
      (changed, [name, ids]) =>
        changed.replace(
          new RegExp(`"${name}":(\\d+)`),
          (_, id: string) => `"${name}":${this.of(symbol, ids).shown(Number(id))}`,
        ),
      text,
    )
  }
}
