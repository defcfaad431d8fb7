import { declarationOf, type TradeType } from '../../../foundation/market/event.ts'
import { IdSequence } from '../market/id-sequence.ts'
import type { TradeEvent } from '../market/market-event.ts'

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

  of(symbol: string, type: TradeType): ReplayIds {
    const key = `${type} ${symbol}`
    const ids = this.#sequences.get(key) ?? new ReplayIds()
    this.#sequences.set(key, ids)
    return ids
  }

  restart(symbol: string, type: TradeType, firstId: number): void {
    this.#restarted = true
    this.of(symbol, type).restart(firstId)
  }

  /** Replaces the ids in the text of a frame by the shown ones. All other bytes stay unchanged. */
  rewritten(type: TradeType, symbol: string, text: string): string {
    if (!this.#restarted) return text
    return declarationOf(type).layout.reduce((changed, [name, role]) => {
      if (role !== 'id' && role !== 'firstTradeId' && role !== 'lastTradeId') return changed
      const ids = this.of(symbol, role === 'id' ? type : 'trade')
      const pattern = new RegExp(`"${name}":(\\d+)`)
      return changed.replace(pattern, (_, id: string) => `"${name}":${ids.shown(Number(id))}`)
    }, text)
  }

  /** An event with its shown ids. */
  shown(type: TradeType, symbol: string, event: TradeEvent): TradeEvent {
    const { id, firstTradeId: first, lastTradeId: last } = event
    const ofTrades = this.of(symbol, 'trade')
    return {
      ...event,
      id: this.of(symbol, type).shown(id),
      ...(first === undefined || last === undefined
        ? {}
        : { firstTradeId: ofTrades.shown(first), lastTradeId: ofTrades.shown(last) }),
    }
  }
}
