/** A row of `GET /api/v3/historicalTrades`, in the exchange's own names and order of keys. */
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

/** Which rows are asked for: from an id on, or of a time (both ends included), or, with neither, the latest. */
export interface HistoryQuery {
  readonly limit: number
  readonly fromId?: number | undefined
  readonly startTimeMs?: number | undefined
  readonly endTimeMs?: number | undefined
  /** Which run of ids, counted from 0; the latest unless given, which is the only one REST shows. */
  readonly epoch?: number | undefined
}

/**
 * What REST knows of the past. Rows come in rising id. An id older than what is kept is silently moved forward
 * to the oldest kept, as the exchange does; one that does not exist yet gives no rows.
 */
export interface TradeHistory {
  readonly symbols: readonly string[]
  /** As `exchangeInfo` says it; null for a symbol that is not listed. */
  status(symbol: string): string | null
  historicalTrades(symbol: string, query: HistoryQuery): readonly HistoricalTrade[]
  aggTrades(symbol: string, query: HistoryQuery): readonly AggTrade[]
}

/** The status of a symbol that trades. */
export const TRADING = 'TRADING'

/** The two id sequences of a symbol. */
export type IdType = 'trade' | 'aggTrade'

/** A market's past with its clock, and the means to begin its ids anew. */
export interface MarketPast extends TradeHistory {
  /** The market's time: of the simulated one the wall clock, of a replay that of the newest trade. */
  nowMs(): number
  /** The id of the next event of each type will be `firstId`; what REST shows begins there too. */
  restartIds(symbol: string, types: readonly IdType[], firstId: number): void
  /** How many runs of ids there were, at least 1. */
  epochCount(symbol: string, ids: IdType): number
}

/** A stretch of one id sequence: the n-th row has the n-th id, times never fall. Bounds are exclusive at the end. */
export interface RowIndex<Row> {
  /** The first position that is kept. */
  readonly begin: number
  /** Just past the newest position that may be seen. */
  readonly end: number
  positionOfId(id: number): number
  /** The first position at or after `timeMs`. */
  positionOfTime(timeMs: number): number
  row(position: number): Row
}

/** Answers a query over one sequence, as both kinds of history do. */
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

/** The first index in [from, to) at which `reached` holds, or `to`; it must hold for all after the first. */
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
