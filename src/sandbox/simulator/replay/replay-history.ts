import { type Fields, isFields, readAggTrade, readTrade } from '../../../foundation/market/payload.ts'
import { ID_TYPES, type IdType, type MarketData, REST_ROWS } from '../market/stream-data.ts'
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

const READERS: { readonly [Type in IdType]: (data: Fields) => object | string } = {
  trade: readTrade,
  aggTrade: readAggTrade,
}

function isOf<Type extends IdType>(type: Type, data: unknown): data is MarketData[Type] {
  return isFields(data) && typeof READERS[type](data) !== 'string'
}

/** The trades that a replay has passed, for REST: what the exchange had at that moment. */
export class ReplayHistory implements MarketPast {
  readonly symbols: readonly string[]
  /** With the recorded ids, before any restart. */
  readonly #played: { readonly [Type in IdType]: Map<string, Played<MarketData[Type]>> } = {
    trade: new Map(),
    aggTrade: new Map(),
  }
  readonly #ids = new AllReplayIds()
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
    const type = ID_TYPES.find((one) => isOf(one, data))
    return type === undefined ? text : this.#add(type, text, data)
  }

  #add<Type extends IdType>(type: Type, text: string, data: unknown): string {
    if (!isOf(type, data)) return text
    const id = REST_ROWS[type].id(data)
    const timeMs = wholeMs(data.T)
    this.#newestMs = Math.max(this.#newestMs, timeMs)
    this.#ids.of(data.s, type).played(id)
    const events = this.#played[type].get(data.s) ?? new Played()
    this.#played[type].set(data.s, events)
    events.add(id, timeMs, data)
    return this.#ids.rewritten(type, data.s, text)
  }

  status(symbol: string): string | null {
    return this.symbols.includes(symbol) ? TRADING : null
  }

  events<Type extends IdType>(
    type: Type,
    symbol: string,
    query: HistoryQuery,
  ): ReadonlyArray<MarketData[Type]> {
    const events = this.#played[type].get(symbol)?.select(query, this.#ids.of(symbol, type)) ?? []
    return events.map((event) => JSON.parse(this.#ids.rewritten(type, symbol, JSON.stringify(event))))
  }

  nowMs(): number {
    return this.#newestMs
  }

  restartIds(symbol: string, types: readonly IdType[], firstId: number): void {
    for (const type of types) this.#ids.restart(symbol, type, firstId)
  }

  epochCount(symbol: string, type: IdType): number {
    return this.#ids.of(symbol, type).epochCount
  }
}

interface PlayedRow<Row> {
  readonly id: number
  readonly timeMs: number
  readonly row: Row
}

/** The newest rows of one id sequence, in ascending id order. */
class Played<Row> {
  #rows: Array<PlayedRow<Row>> = []

  add(id: number, timeMs: number, row: Row): void {
    const last = this.#rows.at(-1)
    // A recording merged from two connections has some frames twice.
    if (last !== undefined && id <= last.id) return
    this.#rows.push({ id, timeMs, row })
    if (this.#rows.length >= KEPT_EVENTS * 2) this.#rows = this.#rows.slice(-KEPT_EVENTS)
  }

  select(query: HistoryQuery, ids: ReplayIds): readonly Row[] {
    const rows = this.#rows
    const { from, to, offset } = ids.epoch(query.epoch)
    const positionOf = (recorded: number) =>
      firstIndex(0, rows.length, (position) => (rows[position]?.id ?? 0) >= recorded)
    const index = {
      begin: Math.max(0, rows.length - KEPT_EVENTS, positionOf(from)),
      end: positionOf(to),
      positionOfId: (id: number) => positionOf(id - offset),
      positionOfTime: (timeMs: number) =>
        firstIndex(0, rows.length, (position) => (rows[position]?.timeMs ?? 0) >= timeMs),
      row: (position: number) => rows[position],
    }
    return selectRows(index, query).flatMap((played) => (played === undefined ? [] : [played.row]))
  }
}
