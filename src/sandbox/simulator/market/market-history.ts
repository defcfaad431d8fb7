import type { BlockStore } from './block-store.ts'
import { decimalFormat, multiply } from './decimals.ts'
import type { IdSequence } from './id-sequence.ts'
import type { MarketBlock } from './market-block.ts'
import { aggTradeSteps } from './market-frames.ts'
import { BLOCK_MS, blockAt, blockStartMs, type SymbolIds, type SymbolPlan } from './market-plan.ts'
import {
  type AggTrade,
  firstIndex,
  type HistoricalTrade,
  type HistoryQuery,
  type IdType,
  type MarketPast,
  type RowIndex,
  selectRows,
  TRADING,
} from './trade-history.ts'

/** One of a symbol's two id sequences, as stored in the blocks. */
interface BlockSequence<Row> {
  readonly ids: IdSequence
  readonly rowsPerBlock: number
  /**
   * Index in the block at which the aggTrade `aggTrade` begins; also valid for one past the last.
   */
  indexOfAggTrade(block: MarketBlock, aggTrade: number): number
  row(block: MarketBlock, index: number, id: number): Row
}

/**
 * The past of the simulated market, recreated from its blocks on request. It covers the last
 * `historyMinutes` (whole blocks) up to the events sent by now (`E`), whether or not a client was
 * connected.
 */
export class MarketHistory implements MarketPast {
  readonly symbols: readonly string[]
  readonly #plans: ReadonlyMap<string, SymbolPlan>
  readonly #ids: ReadonlyMap<string, SymbolIds>
  readonly #blocks: BlockStore
  readonly #historyMinutes: number
  readonly #nowMs: () => number

  constructor(options: {
    plans: ReadonlyMap<string, SymbolPlan>
    ids: ReadonlyMap<string, SymbolIds>
    blocks: BlockStore
    historyMinutes: number
    nowMs: () => number
  }) {
    this.symbols = [...options.plans.keys()]
    this.#plans = options.plans
    this.#ids = options.ids
    this.#blocks = options.blocks
    this.#historyMinutes = options.historyMinutes
    this.#nowMs = options.nowMs
  }

  status(symbol: string): string | null {
    return this.#plans.has(symbol) ? TRADING : null
  }

  historicalTrades(symbol: string, query: HistoryQuery): readonly HistoricalTrade[] {
    const [plan, ids] = this.#planOf(symbol)
    return selectRows(this.#rows(plan, tradesOf(plan, ids), query), query)
  }

  aggTrades(symbol: string, query: HistoryQuery): readonly AggTrade[] {
    const [plan, ids] = this.#planOf(symbol)
    return selectRows(this.#rows(plan, aggTradesOf(plan, ids), query), query)
  }

  nowMs(): number {
    return this.#nowMs()
  }

  restartIds(symbol: string, types: readonly IdType[], firstId: number): void {
    const [plan, ids] = this.#planOf(symbol)
    // Both restart at the same moment; otherwise an aggTrade would have trades of two runs.
    const nowMs = this.#nowMs()
    for (const type of types) {
      const sequence = type === 'trade' ? tradesOf(plan, ids) : aggTradesOf(plan, ids)
      ids[type].restart(this.#endAt<unknown>(plan, sequence, nowMs), firstId)
    }
  }

  /** A halted symbol has no events. After it resumes, its ids continue where they ended. */
  setTrading(symbol: string, isTrading: boolean, nowMs: number): void {
    const [plan, ids] = this.#planOf(symbol)
    for (const sequence of [tradesOf(plan, ids), aggTradesOf(plan, ids)]) {
      const end = this.#endAt<unknown>(plan, sequence, nowMs)
      if (isTrading) sequence.ids.resume(end)
      else sequence.ids.halt(end)
    }
  }

  epochCount(symbol: string, type: IdType): number {
    return this.#planOf(symbol)[1][type].epochCount
  }

  #planOf(symbol: string): [SymbolPlan, SymbolIds] {
    const plan = this.#plans.get(symbol)
    const ids = this.#ids.get(symbol)
    if (plan === undefined || ids === undefined)
      throw new Error(`${symbol} is not listed; the caller must check`)
    return [plan, ids]
  }

  #rows<Row>(
    plan: SymbolPlan,
    sequence: BlockSequence<Row>,
    { epoch, nowMs = this.#nowMs() }: { epoch?: number | undefined; nowMs?: number },
  ): RowIndex<Row> {
    const { rowsPerBlock, ids } = sequence
    const { fromPosition, toPosition, firstId } = ids.epoch(epoch)
    const rowsUpTo = (position: number) => ids.eventsBetween(fromPosition, position)
    return {
      begin: rowsUpTo(Math.max(fromPosition, this.#oldestBlock(nowMs) * rowsPerBlock)),
      end: rowsUpTo(Math.min(toPosition, this.#endAt(plan, sequence, nowMs))),
      positionOfId: (id) => id - firstId,
      positionOfTime: (timeMs) => rowsUpTo(this.#positionAt(plan, sequence, 'tradeMs', timeMs, nowMs)),
      row: (events) => {
        const position = ids.positionAfter(fromPosition, events)
        const number = Math.floor(position / rowsPerBlock)
        const block = this.#blocks.get(plan, number)
        return sequence.row(block, position - number * rowsPerBlock, ids.idAt(position))
      },
    }
  }

  /** The position after that of the newest event sent. */
  #endAt<Row>(plan: SymbolPlan, sequence: BlockSequence<Row>, nowMs: number): number {
    return this.#positionAt(plan, sequence, 'eventMs', nowMs + 1, nowMs)
  }

  /** The position of the first row whose `column` time in its aggTrade is at or after `timeMs`. */
  #positionAt<Row>(
    plan: SymbolPlan,
    sequence: BlockSequence<Row>,
    column: 'tradeMs' | 'eventMs',
    timeMs: number,
    nowMs: number,
  ): number {
    const { rowsPerBlock } = sequence
    const [oldestBlock, newestBlock] = [this.#oldestBlock(nowMs), blockAt(nowMs)]
    const number = blockAt(timeMs)
    if (number < oldestBlock) return oldestBlock * rowsPerBlock
    if (number > newestBlock) return (newestBlock + 1) * rowsPerBlock
    const block = this.#blocks.get(plan, number)
    const times = block.aggTrades[column]
    const sinceStartMs = timeMs - blockStartMs(number)
    const aggTrade = firstIndex(0, times.length, (index) => (times[index] ?? 0) >= sinceStartMs)
    return number * rowsPerBlock + sequence.indexOfAggTrade(block, aggTrade)
  }

  #oldestBlock(nowMs: number): number {
    return Math.max(0, blockAt(nowMs - this.#historyMinutes * BLOCK_MS))
  }
}

function tradesOf(plan: SymbolPlan, ids: SymbolIds): BlockSequence<HistoricalTrade> {
  const price = decimalFormat(plan.instrument.priceDecimals)
  const quantity = decimalFormat(plan.instrument.quantityDecimals)
  return {
    ids: ids.trade,
    rowsPerBlock: plan.tradesPerBlock,
    indexOfAggTrade: (block, aggTrade) => block.aggTrades.firstTrade[aggTrade] ?? 0,
    row(block, trade, id) {
      const { firstTrade, tradeMs, ticks, buyerIsMaker } = block.aggTrades
      const aggTrade = firstIndex(0, tradeMs.length, (index) => (firstTrade[index + 1] ?? 0) > trade)
      const [p, q] = [price(ticks[aggTrade] ?? 0), quantity(block.trades.steps[trade] ?? 0)]
      const time = blockStartMs(block.block) + (tradeMs[aggTrade] ?? 0)
      const isBuyerMaker = buyerIsMaker[aggTrade] === 1
      return { id, price: p, qty: q, quoteQty: multiply(p, q), time, isBuyerMaker, isBestMatch: true }
    },
  }
}

function aggTradesOf(plan: SymbolPlan, ids: SymbolIds): BlockSequence<AggTrade> {
  const price = decimalFormat(plan.instrument.priceDecimals)
  const quantity = decimalFormat(plan.instrument.quantityDecimals)
  return {
    ids: ids.aggTrade,
    rowsPerBlock: plan.aggTradesPerBlock,
    indexOfAggTrade: (_, aggTrade) => aggTrade,
    row(block, aggTrade, a) {
      const { firstTrade, tradeMs, ticks, buyerIsMaker } = block.aggTrades
      const position = block.block * plan.tradesPerBlock
      return {
        a,
        p: price(ticks[aggTrade] ?? 0),
        q: quantity(aggTradeSteps(block, aggTrade)),
        f: ids.trade.idAt(position + (firstTrade[aggTrade] ?? 0)),
        l: ids.trade.idAt(position + (firstTrade[aggTrade + 1] ?? 0) - 1),
        T: blockStartMs(block.block) + (tradeMs[aggTrade] ?? 0),
        m: buyerIsMaker[aggTrade] === 1,
        M: true,
      }
    },
  }
}
