import { IdSequence } from './id-sequence.ts'
import { type Instrument, instrumentOf, popularity } from './instruments.ts'
import { hash32 } from './random.ts'

/** The market is cut into blocks of one minute UTC, each made from nothing but its number. */
export const BLOCK_MS = 60_000

/** The start of block 0. Earlier times are before listing: there are no trades. */
export const LISTED_AT_MS = Date.UTC(2026, 0, 1)

/** What decides a market's history. Two markets equal in all of this are equal for ever. */
export interface MarketIdentity {
  readonly seed: number
  /** On average, over all symbols and the three stream types together. */
  readonly messagesPerSecond: number
  /** Upper-case, without doubles; their order does not matter. */
  readonly symbols: readonly string[]
  /** 0: all symbols are traded alike; 1: the n-th most popular has 1/n of the first one's messages. */
  readonly skew: number
}

/**
 * How much happens on one symbol. A block holds the same number of each event, always, so that ids are
 * contiguous without a memory: the first trade id of block b is `firstTradeId + b * tradesPerBlock`, unless the
 * ids were restarted (`SymbolIds`).
 */
export interface SymbolPlan {
  readonly seed: number
  readonly instrument: Instrument
  readonly tradesPerBlock: number
  readonly aggTradesPerBlock: number
  readonly quotesPerBlock: number
  readonly firstTradeId: number
  readonly firstAggTradeId: number
  readonly firstUpdateId: number
  /** Update ids set aside for a block; it uses some of them, as real `u` has holes. */
  readonly updateIdsPerBlock: number
}

/** bookTicker comes about four times as often as trade (measured on real BTCUSDT and ETHUSDT: 4.1). */
const QUOTES_PER_TRADE = 4
export const MAX_UPDATE_ID_STEP = 5

/** A symbol's two sequences; they are all of a market that is not a function of its identity. */
export interface SymbolIds {
  readonly trade: IdSequence
  readonly aggTrade: IdSequence
}

export function symbolIds(plan: SymbolPlan): SymbolIds {
  return { trade: new IdSequence(plan.firstTradeId), aggTrade: new IdSequence(plan.firstAggTradeId) }
}

export function planMarket(identity: MarketIdentity): ReadonlyMap<string, SymbolPlan> {
  const ranked = [...identity.symbols].sort(
    (a, b) => popularity(a) - popularity(b) || hash32('rank', a) - hash32('rank', b) || (a < b ? -1 : 1),
  )
  const weights = ranked.map((_, rank) => (rank + 1) ** -identity.skew)
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const messagesPerBlock = (identity.messagesPerSecond * BLOCK_MS) / 1000
  return new Map(
    ranked.map((symbol, rank) => [
      symbol,
      planSymbol(symbol, identity.seed, (messagesPerBlock * (weights[rank] ?? 0)) / total),
    ]),
  )
}

function planSymbol(symbol: string, seed: number, messages: number): SymbolPlan {
  const aggTradesPerTrade = aggregationOf(symbol)
  const trades = Math.max(1, Math.round(messages / (1 + aggTradesPerTrade + QUOTES_PER_TRADE)))
  const aggTrades = Math.max(1, Math.round(trades * aggTradesPerTrade))
  const quotes = Math.max(1, Math.round(messages) - trades - aggTrades)
  const firstTradeId = 1_000_000 + hash32('trades', symbol)
  return {
    seed,
    instrument: instrumentOf(symbol),
    tradesPerBlock: trades,
    aggTradesPerBlock: aggTrades,
    quotesPerBlock: quotes,
    firstTradeId,
    // Close behind the trades' own, so that the same number names a trade and another aggTrade, as it does
    // at the exchange; a store that forgets the event type in its key loses rows.
    firstAggTradeId: firstTradeId + 1 + (hash32('aggTrades', symbol) % 97),
    firstUpdateId: 10_000_000_000 + hash32('updates', symbol) * 8,
    updateIdsPerBlock: quotes * MAX_UPDATE_ID_STEP + 1,
  }
}

/**
 * aggTrades per trade. On BNBUSDT and a quarter of the lesser symbols every trade is its own aggTrade, which
 * is what thin markets look like, and keeps their two id sequences within a hundred of each other for ever.
 */
function aggregationOf(symbol: string): number {
  if (symbol === 'BTCUSDT' || symbol === 'ETHUSDT') return 0.5
  return symbol === 'BNBUSDT' || hash32('aggregation', symbol) % 4 === 0 ? 1 : 0.6
}

export function blockAt(timeMs: number): number {
  return Math.floor((timeMs - LISTED_AT_MS) / BLOCK_MS)
}

export function blockStartMs(block: number): number {
  return LISTED_AT_MS + block * BLOCK_MS
}
