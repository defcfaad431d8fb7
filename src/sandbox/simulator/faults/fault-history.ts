import type {
  AggTrade,
  HistoricalTrade,
  HistoryQuery,
  IdType,
  MarketPast,
  TradeHistory,
} from '../market/trade-history.ts'
import { wholeMs } from '../server/time-units.ts'
import type { FaultRegistry } from './fault-registry.ts'

/** How to query and read one kind of row. */
interface Rows<Row> {
  readonly ids: IdType
  readonly query: (query: HistoryQuery) => readonly Row[]
  readonly id: (row: Row) => number
  readonly timeMs: (row: Row) => number
}

/**
 * The history that REST shows while faults are active: rows may be late, absent, out of reach or
 * left out.
 */
export class FaultyHistory implements TradeHistory {
  readonly #truth: MarketPast
  readonly #book: FaultRegistry

  constructor(truth: MarketPast, book: FaultRegistry) {
    this.#truth = truth
    this.#book = book
  }

  get symbols(): readonly string[] {
    return this.#truth.symbols
  }

  status(symbol: string): string | null {
    const isOf = (fault: { readonly spec: { readonly symbol: string } }) => fault.spec.symbol === symbol
    if (this.#book.active('delist').some(isOf)) return null
    return this.#book.active('halt').findLast(isOf)?.spec.status ?? this.#truth.status(symbol)
  }

  historicalTrades(symbol: string, query: HistoryQuery): readonly HistoricalTrade[] {
    if (this.#book.isQuiet) return this.#truth.historicalTrades(symbol, query)
    return this.#select(symbol, query, {
      ids: 'trade',
      query: (changed) => this.#truth.historicalTrades(symbol, changed),
      id: ({ id }) => id,
      timeMs: ({ time }) => wholeMs(time),
    })
  }

  aggTrades(symbol: string, query: HistoryQuery): readonly AggTrade[] {
    if (this.#book.isQuiet) return this.#truth.aggTrades(symbol, query)
    return this.#select(symbol, query, {
      ids: 'aggTrade',
      query: (changed) => this.#truth.aggTrades(symbol, changed),
      id: ({ a }) => a,
      timeMs: ({ T }) => wholeMs(T),
    })
  }

  #select<Row>(symbol: string, asked: HistoryQuery, rows: Rows<Row>): readonly Row[] {
    const lag = this.#lagOf(symbol)
    const query = lag.applyTo(this.#clamped(symbol, asked, rows.ids))
    const withoutHoles = this.#withoutHoles(symbol, query, rows)
    const there = withoutHoles.filter((row) => rows.timeMs(row) <= lag.untilMs)
    if (there.length < withoutHoles.length) lag.strike()
    return this.#shortened(symbol, there)
  }

  #clamped(symbol: string, query: HistoryQuery, ids: IdType): HistoryQuery {
    const { fromId } = query
    if (fromId === undefined) return query
    const clamps = this.#book
      .active('restClamp')
      .filter(({ spec }) => concerns(spec, symbol) && spec.ids === ids && spec.oldestId > fromId)
    for (const fault of clamps) this.#book.strikes(fault)
    return { ...query, fromId: Math.max(fromId, ...clamps.map(({ spec }) => spec.oldestId)) }
  }

  /**
   * The age limit of rows. A query of the latest rows ends before the lag; others return the
   * existing rows.
   */
  #lagOf(symbol: string) {
    const faults = this.#book.active('restLag').filter(({ spec }) => concerns(spec, symbol))
    const lagMs = Math.max(0, ...faults.map(({ spec }) => spec.lagMs))
    const untilMs = faults.length === 0 ? Number.POSITIVE_INFINITY : this.#truth.nowMs() - lagMs
    const strike = () => {
      for (const fault of faults) this.#book.strikes(fault)
    }
    return {
      untilMs,
      strike,
      applyTo(query: HistoryQuery): HistoryQuery {
        const isOfLatest =
          query.fromId === undefined && query.startTimeMs === undefined && query.endTimeMs === undefined
        if (faults.length === 0 || !isOfLatest) return query
        strike()
        return { ...query, endTimeMs: untilMs }
      },
    }
  }

  /** The exchange's answers are full despite absent rows: the following rows take their place. */
  #withoutHoles<Row>(
    symbol: string,
    query: HistoryQuery,
    { ids, query: ask, id }: Rows<Row>,
  ): readonly Row[] {
    const holes = this.#book
      .active('restHole')
      .filter(({ spec }) => concerns(spec, symbol) && spec.ids === ids)
    const holeAt = (row: Row) => holes.find(({ spec }) => id(row) >= spec.fromId && id(row) <= spec.toId)
    if (holes.length === 0) return ask(query)
    const found: Row[] = []
    let next = query
    for (;;) {
      const rows = ask(next)
      const struck = new Set(rows.flatMap((row) => holeAt(row) ?? []))
      for (const fault of struck) this.#book.strikes(fault)
      found.push(...rows.filter((row) => holeAt(row) === undefined))
      const last = rows.at(-1)
      const isByIdAndFull = query.fromId !== undefined && rows.length === next.limit && last !== undefined
      if (!isByIdAndFull || found.length === query.limit) return found
      const skipTo = Math.max(id(last), holeAt(last)?.spec.toId ?? 0) + 1
      next = { ...query, fromId: skipTo, limit: query.limit - found.length }
    }
  }

  #shortened<Row>(symbol: string, rows: readonly Row[]): readonly Row[] {
    let left = rows
    for (const fault of this.#book.active('restShort')) {
      if (!concerns(fault.spec, symbol) || left.length <= fault.spec.rows) continue
      if (this.#book.strikes(fault)) left = left.slice(0, fault.spec.rows)
    }
    return left
  }
}

function concerns(spec: { symbol?: string | undefined }, symbol: string): boolean {
  return spec.symbol === undefined || spec.symbol === symbol
}
