import { IdSequence } from '../market/id-sequence.ts'
import type { IdType } from '../market/trade-history.ts'

/** The ids of one recorded sequence as they are shown: the recorded ones, until they were restarted. */
export class ReplayIds {
  readonly #shown = new IdSequence(0)
  #lastRecorded: number | undefined
  #firstIdOfNext: number | undefined

  get epochCount(): number {
    return this.#shown.epochCount
  }

  /** Where nothing has been played yet, the first event to come begins the new run. */
  restart(firstId: number): void {
    if (this.#lastRecorded === undefined) this.#firstIdOfNext = firstId
    else this.#shown.restart(this.#lastRecorded + 1, firstId)
  }

  played(recorded: number): void {
    if (this.#firstIdOfNext !== undefined) this.#shown.restart(recorded, this.#firstIdOfNext)
    this.#firstIdOfNext = undefined
    this.#lastRecorded = Math.max(this.#lastRecorded ?? recorded, recorded)
  }

  /** Ids below 0 are the exchange's mark of rows it has invalidated, and stay. */
  shown(recorded: number): number {
    return recorded < 0 ? recorded : this.#shown.idAt(recorded)
  }

  /** Recorded ids of a run: the first, the one past the last, and how far they are from those shown. */
  epoch(epoch?: number): { readonly from: number; readonly to: number; readonly offset: number } {
    const { fromPosition, toPosition, firstId } = this.#shown.epoch(epoch)
    return { from: fromPosition, to: toPosition, offset: firstId - fromPosition }
  }
}

/** Both sequences of every symbol. */
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

  /** The frame with its ids as they are shown; every other byte stays. */
  rewritten(text: string, data: unknown): string {
    if (!this.#restarted || data === null || typeof data !== 'object') return text
    const { e, s }: { e?: unknown; s?: unknown } = data
    if (typeof s !== 'string' || (e !== 'trade' && e !== 'aggTrade')) return text
    const names: ReadonlyArray<readonly [name: string, type: IdType]> =
      e === 'trade'
        ? [['t', 'trade']]
        : [
            ['a', 'aggTrade'],
            ['f', 'trade'],
            ['l', 'trade'],
          ]
    return names.reduce(
      (changed, [name, type]) =>
        changed.replace(
          new RegExp(`"${name}":(\\d+)`),
          (_, id: string) => `"${name}":${this.of(s, type).shown(Number(id))}`,
        ),
      text,
    )
  }
}
