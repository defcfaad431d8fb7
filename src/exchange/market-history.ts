import type { BlockStore } from './block-store.ts'
import { decimalFormat, multiply } from './decimals.ts'
import type { MarketBlock } from './market-block.ts'
import { aggTradeSteps } from './market-frames.ts'
import { BLOCK_MS, blockAt, blockStartMs, type SymbolPlan } from './market-plan.ts'
import {
  type AggTrade,
  firstIndex,
  type HistoricalTrade,
  type HistoryQuery,
  type RowIndex,
  selectRows,
  type TradeHistory,
} from './trade-history.ts'

/** One of a symbol's two id sequences, as the blocks hold it. */
interface BlockSequence<Row> {
  readonly firstId: number
  readonly rowsPerBlock: number
  /** The index in the block at which the aggTrade `aggTrade` begins; one past the last is allowed. */
  indexOfAggTrade(block: MarketBlock, aggTrade: number): number
  row(block: MarketBlock, index: number, id: number): Row
}

/**
 * The past of the simulated market, made anew from the blocks it is asked for. It reaches back `historyMinutes`
 * (whole blocks) and ends at what has been sent by now (`E`), whether or not anyone was connected.
 */
export class MarketHistory implements TradeHistory {
  readonly symbols: readonly string[]
  readonly #plans: ReadonlyMap<string, SymbolPlan>
  readonly #blocks: BlockStore
  readonly #historyMinutes: number
  readonly #nowMs: () => number

  constructor(options: {
    plans: ReadonlyMap<string, SymbolPlan>
    blocks: BlockStore
    historyMinutes: number
    nowMs: () => number
  }) {
    this.symbols = [...options.plans.keys()]
    this.#plans = options.plans
    this.#blocks = options.blocks
    this.#historyMinutes = options.historyMinutes
    this.#nowMs = options.nowMs
  }

  historicalTrades(symbol: string, query: HistoryQuery): readonly HistoricalTrade[] {
    const plan = this.#planOf(symbol)
    return selectRows(this.#rows(plan, tradesOf(plan)), query)
  }

  aggTrades(symbol: string, query: HistoryQuery): readonly AggTrade[] {
    const plan = this.#planOf(symbol)
    return selectRows(this.#rows(plan, aggTradesOf(plan)), query)
  }

  #planOf(symbol: string): SymbolPlan {
    const plan = this.#plans.get(symbol)
    if (plan === undefined) throw new Error(`${symbol} is not listed; the caller must check`)
    return plan
  }

  #rows<Row>(plan: SymbolPlan, sequence: BlockSequence<Row>): RowIndex<Row> {
    const { rowsPerBlock, firstId } = sequence
    const nowMs = this.#nowMs()
    const oldestBlock = Math.max(0, blockAt(nowMs - this.#historyMinutes * BLOCK_MS))
    const newestBlock = blockAt(nowMs)
    const blockNumbered = (block: number) => this.#blocks.get(plan, block)
    /** The position of the first row whose aggTrade's `column` time is at or after `timeMs`. */
    const positionAt = (column: 'tradeMs' | 'eventMs', timeMs: number): number => {
      const number = blockAt(timeMs)
      if (number < oldestBlock) return oldestBlock * rowsPerBlock
      if (number > newestBlock) return (newestBlock + 1) * rowsPerBlock
      const block = blockNumbered(number)
      const times = block.aggTrades[column]
      const sinceStartMs = timeMs - blockStartMs(number)
      const aggTrade = firstIndex(0, times.length, (index) => (times[index] ?? 0) >= sinceStartMs)
      return number * rowsPerBlock + sequence.indexOfAggTrade(block, aggTrade)
    }
    return {
      begin: oldestBlock * rowsPerBlock,
      end: positionAt('eventMs', nowMs + 1),
      positionOfId: (id) => id - firstId,
      positionOfTime: (timeMs) => positionAt('tradeMs', timeMs),
      row(position) {
        const number = Math.floor(position / rowsPerBlock)
        return sequence.row(blockNumbered(number), position - number * rowsPerBlock, firstId + position)
      },
    }
  }
}

function tradesOf(plan: SymbolPlan): BlockSequence<HistoricalTrade> {
  const price = decimalFormat(plan.instrument.priceDecimals)
  const quantity = decimalFormat(plan.instrument.quantityDecimals)
  return {
    firstId: plan.firstTradeId,
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

function aggTradesOf(plan: SymbolPlan): BlockSequence<AggTrade> {
  const price = decimalFormat(plan.instrument.priceDecimals)
  const quantity = decimalFormat(plan.instrument.quantityDecimals)
  return {
    firstId: plan.firstAggTradeId,
    rowsPerBlock: plan.aggTradesPerBlock,
    indexOfAggTrade: (_, aggTrade) => aggTrade,
    row(block, aggTrade, a) {
      const { firstTrade, tradeMs, ticks, buyerIsMaker } = block.aggTrades
      const firstTradeId = plan.firstTradeId + block.block * plan.tradesPerBlock
      return {
        a,
        p: price(ticks[aggTrade] ?? 0),
        q: quantity(aggTradeSteps(block, aggTrade)),
        f: firstTradeId + (firstTrade[aggTrade] ?? 0),
        l: firstTradeId + (firstTrade[aggTrade + 1] ?? 0) - 1,
        T: blockStartMs(block.block) + (tradeMs[aggTrade] ?? 0),
        m: buyerIsMaker[aggTrade] === 1,
        M: true,
      }
    },
  }
}
