import { isDecimal, multiply } from './decimals.ts'
import {
  type AggTrade,
  firstIndex,
  type HistoricalTrade,
  type HistoryQuery,
  selectRows,
  type TradeHistory,
} from './trade-history.ts'

/** Rows kept of each id sequence; older ones are as gone as those beyond the exchange's own history. */
const KEPT_ROWS = 100_000

/** The trades a replay has passed, for REST: what the exchange would have known at that moment. */
export class ReplayHistory implements TradeHistory {
  readonly symbols: readonly string[]
  readonly #trades = new Map<string, Played<HistoricalTrade>>()
  readonly #aggTrades = new Map<string, Played<AggTrade>>()

  constructor(symbols: readonly string[]) {
    this.symbols = symbols
  }

  /** Takes the `data` of a frame; what is no trade, or lacks what a row needs, is left out. */
  add(data: unknown): void {
    if (data === null || typeof data !== 'object') return
    const { e, s, t, a, p, q, f, l, T, m }: Record<string, unknown> = { ...data }
    if (typeof s !== 'string' || typeof p !== 'string' || typeof q !== 'string') return
    if (typeof T !== 'number' || typeof m !== 'boolean' || !isDecimal(p) || !isDecimal(q)) return
    if (e === 'trade' && typeof t === 'number') {
      const row = {
        id: t,
        price: p,
        qty: q,
        quoteQty: multiply(p, q),
        time: T,
        isBuyerMaker: m,
        isBestMatch: true,
      }
      played(this.#trades, s).add(t, T, row)
    }
    if (e === 'aggTrade' && typeof a === 'number' && typeof f === 'number' && typeof l === 'number') {
      played(this.#aggTrades, s).add(a, T, { a, p, q, f, l, T, m, M: true })
    }
  }

  historicalTrades(symbol: string, query: HistoryQuery): readonly HistoricalTrade[] {
    return this.#trades.get(symbol)?.select(query) ?? []
  }

  aggTrades(symbol: string, query: HistoryQuery): readonly AggTrade[] {
    return this.#aggTrades.get(symbol)?.select(query) ?? []
  }
}

interface PlayedRow<Row> {
  readonly id: number
  readonly timeMs: number
  readonly row: Row
}

/** The newest rows of one id sequence, in rising id. */
class Played<Row> {
  #rows: Array<PlayedRow<Row>> = []

  add(id: number, timeMs: number, row: Row): void {
    const last = this.#rows.at(-1)
    // Recorders that merged two connections have some frames twice.
    if (last !== undefined && id <= last.id) return
    this.#rows.push({ id, timeMs, row })
    if (this.#rows.length >= KEPT_ROWS * 2) this.#rows = this.#rows.slice(-KEPT_ROWS)
  }

  select(query: HistoryQuery): readonly Row[] {
    const rows = this.#rows
    const index = {
      begin: Math.max(0, rows.length - KEPT_ROWS),
      end: rows.length,
      positionOfId: (id: number) => firstIndex(0, rows.length, (position) => (rows[position]?.id ?? 0) >= id),
      positionOfTime: (timeMs: number) =>
        firstIndex(0, rows.length, (position) => (rows[position]?.timeMs ?? 0) >= timeMs),
      row: (position: number) => rows[position],
    }
    return selectRows(index, query).flatMap((played) => (played === undefined ? [] : [played.row]))
  }
}

function played<Row>(sequences: Map<string, Played<Row>>, symbol: string): Played<Row> {
  const sequence = sequences.get(symbol) ?? new Played<Row>()
  sequences.set(symbol, sequence)
  return sequence
}
