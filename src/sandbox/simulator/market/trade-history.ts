/** A row of `GET /api/v3/historicalTrades`, with the exchange's names and order of keys. */
export interface HistoricalTrade {
  readonly id: number
  readonly price: string
  readonly qty: string
  readonly quoteQty: string
  readonly time: number
  readonly isBuyerMaker: boolean
  readonly isBestMatch: boolean
}

/** A row of `GET /api/v3/aggTrades`. */
export interface AggTrade {
  readonly a: number
  readonly p: string
  readonly q: string
  readonly f: number
  readonly l: number
  readonly T: number
  readonly m: boolean
  readonly M: boolean
}

/** Selects rows: from an id, or by time (both ends included), or, with neither, the latest. */
export interface HistoryQuery {
  readonly limit: number
  readonly fromId?: number | undefined
  readonly startTimeMs?: number | undefined
  readonly endTimeMs?: number | undefined
  /** Run of ids, counted from 0. Default: the latest, the only one that REST shows. */
  readonly epoch?: number | undefined
}

/**
 * The past that REST shows. Rows are in ascending id order. An id older than the kept rows is
 * silently moved to the oldest kept one, as on the exchange. A future id gives no rows.
 */
export interface TradeHistory {
  readonly symbols: readonly string[]
  /** The status in `exchangeInfo`; null for a symbol that is not listed. */
  status(symbol: string): string | null
  historicalTrades(symbol: string, query: HistoryQuery): readonly HistoricalTrade[]
  aggTrades(symbol: string, query: HistoryQuery): readonly AggTrade[]
}

/** The status of a symbol that trades. */
export const TRADING = 'TRADING'

/** The two id sequences of a symbol. */
export type IdType = 'trade' | 'aggTrade'

/** A market's past with its clock, and control over its ids. */
export interface MarketPast extends TradeHistory {
  /** The market's time: the wall clock if simulated, the time of the newest trade in a replay. */
  nowMs(): number
  /** Makes `firstId` the id of the next event of each type. REST then also starts there. */
  restartIds(symbol: string, types: readonly IdType[], firstId: number): void
  /** Number of runs of ids, at least 1. */
  epochCount(symbol: string, ids: IdType): number
}

/**
 * A part of one id sequence with consecutive ids and times that never fall. Upper bounds are
 * exclusive.
 */
export interface RowIndex<Row> {
  /** The first kept position. */
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

/**
 * The first index in [from, to) at which `reached` is true, or `to`. It must be true for all later
 * ones.
 */
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
