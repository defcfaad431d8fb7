import type { TradeType } from '../../../foundation/market/event.ts'
import type { TradeEvent } from './market-event.ts'

/** Selects events: from an id, or by time (both ends included), or, with neither, the latest. */
export interface HistoryQuery {
  readonly limit: number
  readonly fromId?: number | undefined
  readonly startTimeMs?: number | undefined
  readonly endTimeMs?: number | undefined
  /** Run of ids, counted from 0. Default: the latest, the only one that REST shows. */
  readonly epoch?: number | undefined
}

/**
 * The past that REST shows. Events are in ascending id order. An id older than the kept events is
 * silently moved to the oldest kept one, as on the exchange. A future id gives no events.
 */
export interface TradeHistory {
  readonly symbols: readonly string[]
  /** The status in `exchangeInfo`; null for a symbol that is not listed. */
  status(symbol: string): string | null
  events(type: TradeType, symbol: string, query: HistoryQuery): readonly TradeEvent[]
}

export const TRADING = 'TRADING'

/** What has a sequence of ids; `update`: quotes and order books. */
export type IdType = TradeType | 'update'

/** A market's past with its clock, and control over its ids. */
export interface MarketPast extends TradeHistory {
  /** The market's time: the wall clock if simulated, the time of the newest trade in a replay. */
  nowMs(): number
  /** Makes `firstId` the id of the next event of each type. REST then also starts there. */
  restartIds(symbol: string, types: readonly IdType[], firstId: number): void
  epochCount(symbol: string, type: IdType): number
}

/** The true events of the market, regardless of faults in REST, without weights or limits. */
export interface ExchangeTruth extends Pick<MarketPast, 'symbols' | 'epochCount'> {
  /**
   * Events with ids from `fromId` to `toId`, both included, if the market still has them.
   * @throws {RangeError} when the `epoch` (from 0; default: the latest) does not exist yet
   */
  events(type: TradeType, symbol: string, fromId: number, toId: number, epoch?: number): readonly TradeEvent[]
}

/** A part of one id sequence, whose times never fall. Upper bounds are exclusive. */
export interface RowIndex<Row> {
  readonly begin: number
  /** The position after the newest visible one. */
  readonly end: number
  positionOfId(id: number): number
  /** The first position at or after `timeMs`. */
  positionOfTime(timeMs: number): number
  row(position: number): Row
}

/** Answers a query on one sequence, for both kinds of history. */
export function selectRows<Row>(rows: RowIndex<Row>, query: HistoryQuery): readonly Row[] {
  const { begin, end } = rows
  let from = Math.max(begin, end - query.limit)
  let to = end
  if (query.fromId !== undefined) {
    from = Math.max(begin, rows.positionOfId(query.fromId))
  } else if (query.startTimeMs !== undefined || query.endTimeMs !== undefined) {
    if (query.endTimeMs !== undefined) to = Math.min(end, rows.positionOfTime(query.endTimeMs + 1))
    from = query.startTimeMs === undefined ? to - query.limit : rows.positionOfTime(query.startTimeMs)
    from = Math.max(begin, from)
  }
  const selected: Row[] = []
  for (let position = from; position < Math.min(to, from + query.limit); position++)
    selected.push(rows.row(position))
  return selected
}

/** The first index in [from, to) at which `reached` becomes true and stays so, or `to`. */
export function firstIndex(from: number, to: number, reached: (index: number) => boolean): number {
  let low = from
  let high = to
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if (reached(middle)) high = middle
    else low = middle + 1
  }
  return low
}
