import { byTradeType, TRADE_TYPES, type TradeType } from '../../../foundation/market/event.ts'
import { EventFields } from '../../../foundation/market/event-fields.ts'
import { isFields, readPayload } from '../../../foundation/market/payload.ts'
import { MICROSECONDS_IN } from '../../../foundation/market/time-unit.ts'
import type { TradeEvent } from '../market/market-event.ts'
import {
  firstIndex,
  type HistoryQuery,
  type MarketPast,
  selectRows,
  TRADING,
} from '../market/trade-history.ts'
import { wholeMs } from '../server/time-units.ts'
import { AllReplayIds, type ReplayIds } from './replay-ids.ts'

/**
 * Events kept per id sequence. Older ones are unavailable, like those beyond the exchange's history.
 */
const KEPT_EVENTS = 100_000

/** The trades that a replay has passed, for REST: what the exchange had at that moment. */
export class ReplayHistory implements MarketPast {
  readonly symbols: readonly string[]
  /** With the recorded ids, before any restart. */
  readonly #played = byTradeType(() => new Map<string, Played>())
  readonly #ids = new AllReplayIds()
  readonly #fields = new EventFields()
  #newestMs = 0

  constructor(symbols: readonly string[]) {
    this.symbols = symbols
  }

  /**
   * Adds the `data` of a frame, unless it is not a complete trade.
   *
   * @returns the text of the frame with its shown ids
   */
  add(text: string, data: unknown): string {
    if (!isFields(data)) return text
    const type = TRADE_TYPES.find((one) => one === data['e'])
    const fields = this.#fields
    if (type === undefined || readPayload(type, data, fields) !== null) return text
    const { id, price, quantity, isBuyerMaker, firstTradeId, lastTradeId } = fields
    const symbol = fields.symbol.text
    const inUnit = (us: number) => us / MICROSECONDS_IN[fields.timeUnit]
    const event = {
      ...{ id, price, quantity, isBuyerMaker },
      ...{ eventTime: inUnit(fields.eventTimeUs), tradeTime: inUnit(fields.tradeTimeUs) },
      ...(type === 'aggTrade' ? { firstTradeId, lastTradeId } : {}),
    }
    this.#newestMs = Math.max(this.#newestMs, fields.tradeTimeMs)
    this.#ids.of(symbol, type).played(id)
    const played = this.#played[type].get(symbol) ?? new Played()
    this.#played[type].set(symbol, played)
    played.add(event)
    return this.#ids.rewritten(type, symbol, text)
  }

  status(symbol: string): string | null {
    return this.symbols.includes(symbol) ? TRADING : null
  }

  events(type: TradeType, symbol: string, query: HistoryQuery): readonly TradeEvent[] {
    const events = this.#played[type].get(symbol)?.select(query, this.#ids.of(symbol, type)) ?? []
    return events.map((event) => this.#ids.shown(type, symbol, event))
  }

  nowMs(): number {
    return this.#newestMs
  }

  restartIds(symbol: string, types: readonly TradeType[], firstId: number): void {
    for (const type of types) this.#ids.restart(symbol, type, firstId)
  }

  epochCount(symbol: string, type: TradeType): number {
    return this.#ids.of(symbol, type).epochCount
  }
}

/** The newest events of one id sequence, in ascending id order. */
class Played {
  #events: TradeEvent[] = []

  add(event: TradeEvent): void {
    const last = this.#events.at(-1)
    // A recording merged from two connections has some frames twice.
    if (last !== undefined && event.id <= last.id) return
    this.#events.push(event)
    if (this.#events.length >= KEPT_EVENTS * 2) this.#events = this.#events.slice(-KEPT_EVENTS)
  }

  select(query: HistoryQuery, ids: ReplayIds): readonly TradeEvent[] {
    const events = this.#events
    const { from, to, offset } = ids.epoch(query.epoch)
    const first = (reached: (event: TradeEvent) => boolean) =>
      firstIndex(0, events.length, (at) => {
        const event = events[at]
        return event !== undefined && reached(event)
      })
    const positionOf = (recorded: number) => first(({ id }) => id >= recorded)
    const index = {
      begin: Math.max(0, events.length - KEPT_EVENTS, positionOf(from)),
      end: positionOf(to),
      positionOfId: (id: number) => positionOf(id - offset),
      positionOfTime: (timeMs: number) => first(({ tradeTime }) => wholeMs(tradeTime) >= timeMs),
      row: (position: number) => events[position],
    }
    return selectRows(index, query).flatMap((event) => event ?? [])
  }
}
