import type { TradeType } from '../../../foundation/market/event.ts'
import type { BookHistory, BookSnapshot } from '../market/book-history.ts'
import type { TradeEvent } from '../market/market-event.ts'
import type { HistoryQuery, MarketPast, TradeHistory } from '../market/trade-history.ts'
import { wholeMs } from '../server/time-units.ts'
import type { Fault, FaultRegistry } from './fault-registry.ts'

type Truth = TradeHistory & Pick<MarketPast, 'nowMs'>

/** What REST shows while faults are active: rows may be late, absent or out of reach. */
export class FaultyHistory implements TradeHistory {
  readonly #truth: Truth
  readonly #book: FaultRegistry

  constructor(truth: Truth, book: FaultRegistry) {
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

  events(type: TradeType, symbol: string, asked: HistoryQuery): readonly TradeEvent[] {
    if (this.#book.isQuiet) return this.#truth.events(type, symbol, asked)
    const lags = this.#book.active('restLag').filter(({ spec }) => concerns(spec, symbol))
    const untilMs = this.#truth.nowMs() - Math.max(0, ...lags.map(({ spec }) => spec.lagMs))
    // A query of the latest rows ends before the lag; others return the existing rows.
    const isOfLatest = (asked.fromId ?? asked.startTimeMs ?? asked.endTimeMs) === undefined
    const endsEarly = lags.length > 0 && isOfLatest
    const query = endsEarly ? { ...asked, endTimeMs: untilMs } : this.#clamped(symbol, asked, type)
    const rows = this.#withoutHoles(type, symbol, query)
    const there = lags.length === 0 ? rows : rows.filter((row) => wholeMs(row.tradeTime) <= untilMs)
    if (endsEarly || there.length < rows.length) this.#strike(lags)
    return this.#shortened(symbol, there)
  }

  /** The latest book that REST shows. */
  book(books: BookHistory, symbol: string, levels: number): BookSnapshot {
    const lags = this.#book.active('restLag').filter(({ spec }) => concerns(spec, symbol))
    this.#strike(lags)
    const timeMs = this.#truth.nowMs() - Math.max(0, ...lags.map(({ spec }) => spec.lagMs))
    return books.book(symbol, { timeMs }, levels)
  }

  #strike(faults: Iterable<Fault>): void {
    for (const fault of faults) this.#book.strikes(fault)
  }

  #clamped(symbol: string, query: HistoryQuery, ids: TradeType): HistoryQuery {
    const { fromId } = query
    if (fromId === undefined) return query
    const clamps = this.#book
      .active('restClamp')
      .filter(({ spec }) => concerns(spec, symbol) && spec.ids === ids && spec.oldestId > fromId)
    this.#strike(clamps)
    return { ...query, fromId: Math.max(fromId, ...clamps.map(({ spec }) => spec.oldestId)) }
  }

  /** The exchange's answers are full despite absent rows: the following rows take their place. */
  #withoutHoles(type: TradeType, symbol: string, query: HistoryQuery): readonly TradeEvent[] {
    const ask = (asked: HistoryQuery) => this.#truth.events(type, symbol, asked)
    const holes = this.#book
      .active('restHole')
      .filter(({ spec }) => concerns(spec, symbol) && spec.ids === type)
    const holeAt = ({ id }: TradeEvent) => holes.find(({ spec }) => id >= spec.fromId && id <= spec.toId)
    if (holes.length === 0) return ask(query)
    const found: TradeEvent[] = []
    let next = query
    for (;;) {
      const rows = ask(next)
      this.#strike(new Set(rows.flatMap((row) => holeAt(row) ?? [])))
      found.push(...rows.filter((row) => holeAt(row) === undefined))
      const last = rows.at(-1)
      const isByIdAndFull = query.fromId !== undefined && rows.length === next.limit && last !== undefined
      if (!isByIdAndFull || found.length === query.limit) return found
      const skipTo = Math.max(last.id, holeAt(last)?.spec.toId ?? 0) + 1
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
