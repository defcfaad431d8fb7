import { IdSequence } from '../market/id-sequence.ts'
import type { TradeEvent } from '../market/market-event.ts'
import { firstIndex, type HistoryQuery, selectRows } from '../market/trade-history.ts'
import { wholeMs } from '../server/time-units.ts'

/** Events kept. Older ones are unavailable, like those beyond the exchange's history. */
const KEPT_EVENTS = 100_000

/** The played events of one type and symbol. Shown ids differ from recorded ones after a restart. */
export class ReplaySequence {
  /** Its positions are recorded ids. */
  readonly #ids = new IdSequence(0)
  /** With recorded ids, in ascending order. */
  #events: TradeEvent[] = []
  #firstIdOfNext: number | undefined

  get epochCount(): number {
    return this.#ids.epochCount
  }

  /** Restarts the ids. If nothing has been played yet, the next event begins the new run. */
  restart(firstId: number): void {
    const last = this.#events.at(-1)
    if (last === undefined) this.#firstIdOfNext = firstId
    else this.#ids.restart(last.id + 1, firstId)
  }

  add(event: TradeEvent): void {
    const last = this.#events.at(-1)
    // A recording merged from two connections has some frames twice.
    if (last !== undefined && event.id <= last.id) return
    if (this.#firstIdOfNext !== undefined) this.#ids.restart(event.id, this.#firstIdOfNext)
    this.#firstIdOfNext = undefined
    this.#events.push(event)
    if (this.#events.length >= KEPT_EVENTS * 2) this.#events = this.#events.slice(-KEPT_EVENTS)
  }

  /** Negative ids mark rows that the exchange has invalidated, and are not changed. */
  shown(recorded: number): number {
    return recorded < 0 ? recorded : this.#ids.idAt(recorded)
  }

  select(query: HistoryQuery): readonly TradeEvent[] {
    const events = this.#events
    const { fromPosition, toPosition, firstId } = this.#ids.epoch(query.epoch)
    const first = (reached: (event: TradeEvent) => boolean) =>
      firstIndex(0, events.length, (at) => {
        const event = events[at]
        return event !== undefined && reached(event)
      })
    const positionOf = (recorded: number) => first(({ id }) => id >= recorded)
    const index = {
      begin: Math.max(0, events.length - KEPT_EVENTS, positionOf(fromPosition)),
      end: positionOf(toPosition),
      positionOfId: (id: number) => positionOf(id - firstId + fromPosition),
      positionOfTime: (timeMs: number) => first(({ tradeTime }) => wholeMs(tradeTime) >= timeMs),
      row: (position: number) => events[position],
    }
    return selectRows(index, query).flatMap((event) => event ?? [])
  }
}
