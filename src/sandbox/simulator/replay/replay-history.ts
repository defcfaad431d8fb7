import { declarationOf, TRADE_TYPES, type TradeType } from '../../../foundation/market/event.ts'
import { EventFields } from '../../../foundation/market/event-fields.ts'
import { isFields, readPayload } from '../../../foundation/market/payload.ts'
import { MICROSECONDS_IN } from '../../../foundation/market/time-unit.ts'
import type { TradeEvent } from '../market/market-event.ts'
import { type HistoryQuery, type IdType, type MarketPast, TRADING } from '../market/trade-history.ts'
import { ReplaySequence } from './replay-sequence.ts'

/** The trades that a replay has passed, for REST: what the exchange had at that moment. */
export class ReplayHistory implements MarketPast {
  readonly symbols: readonly string[]
  readonly #sequences = new Map<string, ReplaySequence>()
  #restarted = false
  readonly #fields = new EventFields()
  #newestMs = 0

  constructor(symbols: readonly string[]) {
    this.symbols = symbols
  }

  /** Adds the `data` of a frame, if it is a complete trade. Returns the text with its shown ids. */
  add(text: string, data: unknown): string {
    if (!isFields(data)) return text
    const type = TRADE_TYPES.find((one) => one === data['e'])
    const fields = this.#fields
    if (type === undefined || readPayload(type, data, fields) !== null) return text
    const { id, price, quantity, isBuyerMaker, firstTradeId, lastTradeId } = fields
    const symbol = fields.symbol.text
    const inUnit = (us: number) => us / MICROSECONDS_IN[fields.timeUnit]
    this.#newestMs = Math.max(this.#newestMs, fields.tradeTimeMs)
    this.#sequence(type, symbol).add({
      ...{ id, price, quantity, isBuyerMaker },
      ...{ eventTime: inUnit(fields.eventTimeUs), tradeTime: inUnit(fields.tradeTimeUs) },
      ...(type === 'aggTrade' ? { firstTradeId, lastTradeId } : {}),
    })
    return this.#restarted ? this.#rewritten(type, symbol, text) : text
  }

  status(symbol: string): string | null {
    return this.symbols.includes(symbol) ? TRADING : null
  }

  events(type: TradeType, symbol: string, query: HistoryQuery): readonly TradeEvent[] {
    const [sequence, trades] = [this.#sequence(type, symbol), this.#sequence('trade', symbol)]
    return sequence.select(query).map((event) => {
      const { id, firstTradeId: first, lastTradeId: last } = event
      const ofTrades =
        first === undefined || last === undefined
          ? {}
          : { firstTradeId: trades.shown(first), lastTradeId: trades.shown(last) }
      return { ...event, id: sequence.shown(id), ...ofTrades }
    })
  }

  nowMs(): number {
    return this.#newestMs
  }

  restartIds(symbol: string, types: readonly IdType[], firstId: number): void {
    this.#restarted = true
    for (const type of types) this.#sequence(type, symbol).restart(firstId)
  }

  epochCount(symbol: string, type: IdType): number {
    return this.#sequence(type, symbol).epochCount
  }

  #sequence(type: IdType, symbol: string): ReplaySequence {
    const key = `${type} ${symbol}`
    const sequence = this.#sequences.get(key) ?? new ReplaySequence()
    this.#sequences.set(key, sequence)
    return sequence
  }

  /** Replaces the ids in the text of a frame by the shown ones. All other bytes stay unchanged. */
  #rewritten(type: TradeType, symbol: string, text: string): string {
    return declarationOf(type).layout.reduce((changed, [name, role]) => {
      if (role !== 'id' && role !== 'firstTradeId' && role !== 'lastTradeId') return changed
      const sequence = this.#sequence(role === 'id' ? type : 'trade', symbol)
      const pattern = new RegExp(`"${name}":(\\d+)`)
      return changed.replace(pattern, (_, id: string) => `"${name}":${sequence.shown(Number(id))}`)
    }, text)
  }
}
