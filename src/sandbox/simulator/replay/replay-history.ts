import { isDecimal, multiply } from '../market/decimals.ts'
import {
  type AggTrade,
  firstIndex,
  type HistoricalTrade,
  type HistoryQuery,
  type IdType,
  type MarketPast,
  selectRows,
  TRADING,
} from '../market/trade-history.ts'
import { wholeMs } from '../server/time-units.ts'
import { AllReplayIds, type ReplayIds } from './replay-ids.ts'

/**
 * Rows kept per id sequence. Older rows are unavailable, like those beyond the exchange's history.
 */
const KEPT_ROWS = 100_000

/** The trades that a replay has passed, for REST: what the exchange had at that moment. */
export class ReplayHistory implements MarketPast {
  readonly symbols: readonly string[]
  /** With the recorded ids, before any restart. */
  readonly #trades = new Map<string, Played<HistoricalTrade>>()
  readonly #aggTrades = new Map<string, Played<AggTrade>>()

  readonly #ids = new AllReplayIds()
  #newestMs = 0

  constructor(symbols: readonly string[]) {
    this.symbols = symbols
  }

  /** Adds the `data` of a frame. Ignores data that is not a complete trade. */
  add(data: unknown): void {
    if (data === null || typeof data !== 'object') return
    const { e, s, t, a, p, q, f, l, T, m }: Record<string, unknown> = { ...data }
    if (typeof s !== 'string' || typeof p !== 'string' || typeof q !== 'string') return
    if (typeof T !== 'number' || typeof m !== 'boolean' || !isDecimal(p) || !isDecimal(q)) return
    this.#newestMs = Math.max(this.#newestMs, wholeMs(T))
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
      this.#ids.of(s, 'trade').played(t)
      played(this.#trades, s).add(t, wholeMs(T), row)
    }
    if (e === 'aggTrade' && typeof a === 'number' && typeof f === 'number' && typeof l === 'number') {
      this.#ids.of(s, 'aggTrade').played(a)
      played(this.#aggTrades, s).add(a, wholeMs(T), { a, p, q, f, l, T, m, M: true })
    }
  }

  status(symbol: string): string | null {
    return this.symbols.includes(symbol) ? TRADING : null
  }

  historicalTrades(symbol: string, query: HistoryQuery): readonly HistoricalTrade[] {
    const ids = this.#ids.of(symbol, 'trade')
    const rows = this.#trades.get(symbol)?.select(query, ids) ?? []
    return ids.epochCount === 1 ? rows : rows.map((row) => ({ ...row, id: ids.shown(row.id) }))
  }

  aggTrades(symbol: string, query: HistoryQuery): readonly AggTrade[] {
    const [ids, tradeIds] = [this.#ids.of(symbol, 'aggTrade'), this.#ids.of(symbol, 'trade')]
    const rows = this.#aggTrades.get(symbol)?.select(query, ids) ?? []
    if (ids.epochCount === 1 && tradeIds.epochCount === 1) return rows
    return rows.map((row) => ({
      ...row,
      a: ids.shown(row.a),
      f: tradeIds.shown(row.f),
      l: tradeIds.shown(row.l),
    }))
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

  /** The text of an added frame, with its shown ids. */
  shown(text: string, data: unknown): string {
    return this.#ids.rewritten(text, data)
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
    if (this.#rows.length >= KEPT_ROWS * 2) this.#rows = this.#rows.slice(-KEPT_ROWS)
  }

  select(query: HistoryQuery, ids: ReplayIds): readonly Row[] {
    const rows = this.#rows
    const { from, to, offset } = ids.epoch(query.epoch)
    const positionOf = (recorded: number) =>
      firstIndex(0, rows.length, (position) => (rows[position]?.id ?? 0) >= recorded)
    const index = {
      begin: Math.max(0, rows.length - KEPT_ROWS, positionOf(from)),
      end: positionOf(to),
      positionOfId: (id: number) => positionOf(id - offset),
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
