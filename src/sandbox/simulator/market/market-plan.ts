import { byTradeType, type TickType, type TradeType } from '../../../foundation/market/event.ts'
import { IdSequence } from './id-sequence.ts'
import { type Instrument, instrumentOf, popularity } from './instruments.ts'
import { hash32 } from './random.ts'

/** The market is divided into blocks of one minute UTC. Each is created from only its number. */
export const BLOCK_MS = 60_000

/** The start of block 0. Before this time no symbol is listed and there are no trades. */
export const LISTED_AT_MS = Date.UTC(2026, 0, 1)

/** Determines a market's history. Markets with equal values are always equal. */
export interface MarketIdentity {
  readonly seed: number
  /** Average over time, summed over all symbols and the three stream types. */
  readonly messagesPerSecond: number
  /** Upper-case, without duplicates, in any order. */
  readonly symbols: readonly string[]
  /** 0: all symbols trade equally; 1: the n-th most popular has 1/n of the first. */
  readonly skew: number
}

/**
 * Rate of events of one symbol. The number of a block's events follows from its own, so ids are
 * consecutive without stored state: the first trade id of block b is `firstIds.trade + b *
 * perBlock.trade`, unless the ids were restarted (`SymbolIds`).
 */
export interface SymbolPlan {
  readonly seed: number
  readonly instrument: Instrument
  readonly perBlock: Readonly<Record<TickType, number>>
  readonly firstIds: Readonly<Record<TradeType, number>>
  readonly firstUpdateId: number
  /** Update ids of a block. Quotes have some of them, since real `u` has gaps. */
  readonly updateIdsPerBlock: number
}

/** Measured on real BTCUSDT and ETHUSDT: 4.1. */
const QUOTES_PER_TRADE = 4
export const MAX_UPDATE_ID_STEP = 5
/** Update ids per step. The ones between two quotes belong to changes below the top of the book. */
export const UPDATE_IDS_PER_STEP = 8

/** A few an hour at usual rates, at least three. They are not part of the messages per second. */
const MESSAGES_PER_BLOCK_TRADE = 100_000
const LEAST_BLOCK_TRADES = 3 / 60

/** A symbol's id sequences. They can restart and halt. */
export type SymbolIds = Readonly<Record<TradeType, IdSequence>> & {
  /** Shared by quotes and changes of the order book; block b has the positions from b * `updateIdsPerBlock` on. */
  readonly update: IdSequence
}

export function symbolIds({ firstIds, firstUpdateId }: SymbolPlan): SymbolIds {
  return { ...byTradeType((type) => new IdSequence(firstIds[type])), update: new IdSequence(firstUpdateId) }
}

/** The position of a block's first event among all of its type. Many blocks have no event. */
export function eventsBefore({ perBlock }: SymbolPlan, type: TickType, block: number): number {
  return Math.floor(perBlock[type] * block)
}

export function blockOf(plan: SymbolPlan, type: TickType, position: number): number {
  let block = Math.floor(position / plan.perBlock[type])
  while (eventsBefore(plan, type, block + 1) <= position) block++
  return block
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
    perBlock: {
      trade: trades,
      aggTrade: aggTrades,
      bookTicker: quotes,
      blockTrade: Math.max(LEAST_BLOCK_TRADES, messages / MESSAGES_PER_BLOCK_TRADE),
    },
    firstIds: {
      trade: firstTradeId,
      // Shortly after the trade ids, so that the same number identifies a trade and another
      // aggTrade, as on the exchange. A store without the event type in its key loses rows.
      aggTrade: firstTradeId + 1 + (hash32('aggTrades', symbol) % 97),
      blockTrade: 1 + (hash32('blockTrades', symbol) % 1_000_000),
    },
    firstUpdateId: 10_000_000_000 + hash32('updates', symbol) * 8,
    updateIdsPerBlock: (quotes * MAX_UPDATE_ID_STEP + 1) * UPDATE_IDS_PER_STEP,
  }
}

/**
 * aggTrades per trade. On BNBUSDT and a quarter of the less traded symbols, every trade has a
 * separate one, as in thin markets: their two id sequences stay within a hundred of each other.
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
