import { systemClock, wallMs } from '../../foundation/runtime/clock.ts'
import { type Exchange, type ExchangeOptions, openExchangeServer } from './exchange-server.ts'
import { MarketBooks } from './market/book-history.ts'
import { DEFAULT_SYMBOLS } from './market/instruments.ts'
import { openMarket } from './market/market.ts'
import { MarketHistory } from './market/market-history.ts'
import type { MarketIdentity } from './market/market-plan.ts'
import { hash32 } from './market/random.ts'
import { MarketFeed } from './market-feed.ts'
import { StreamServer } from './server/stream-server.ts'

export interface SimulatedExchangeOptions extends ExchangeOptions {
  /** In any case. Default: BTCUSDT, ETHUSDT and BNBUSDT. */
  readonly symbols?: readonly string[]
  /** A whole number ≥ 0. Default: 1. */
  readonly seed?: number
  /** Average over all symbols and stream types, above 0. Default: 300. */
  readonly messagesPerSecond?: number
  /** 0: all symbols trade equally; 1 (the default): the n-th most popular has 1/n of the first. */
  readonly skew?: number
  /** How far back REST reaches. Default: a day. */
  readonly historyMinutes?: number
  /**
   * Groups of connections, in turn, whose depth diffs are cut at different moments. Default: 1.
   */
  readonly depthGroups?: number
}

export const DEFAULT_SEED = 1
export const DEFAULT_MESSAGES_PER_SECOND = 300
export const DEFAULT_SKEW = 1

/**
 * Starts the simulated exchange, whose market is a function of its identity and the time.
 * @throws {TapelineError} `ENVIRONMENT` for a port that stays taken
 */
export async function startSimulatedExchange(options: SimulatedExchangeOptions = {}): Promise<Exchange> {
  const {
    limits,
    clock = systemClock(),
    historyMinutes = 24 * 60,
    symbols = DEFAULT_SYMBOLS,
    seed = DEFAULT_SEED,
    messagesPerSecond = DEFAULT_MESSAGES_PER_SECOND,
    skew = DEFAULT_SKEW,
    depthGroups = 1,
  } = options
  const unique = new Set(symbols.map((symbol) => symbol.toUpperCase()))
  const identity = { symbols: [...unique], seed, messagesPerSecond, skew }
  const markets = openMarket(identity)
  const source = simulatedExchangeName(identity)
  const streams = new StreamServer({ source, ownTimeUnit: null, limits, clock })
  const feed = new MarketFeed(markets, streams, depthGroups)
  const nowMs = () => wallMs(clock)
  const past = new MarketHistory({ markets, historyMinutes, nowMs })
  return openExchangeServer(options, {
    streams,
    past,
    books: new MarketBooks(markets, nowMs),
    faultSeed: seed,
    setTrading(symbol, isTrading) {
      // Both use the same moment; otherwise a frame could have ids that REST does not have.
      const atMs = wallMs(clock)
      if (feed.setTrading(symbol, isTrading, atMs)) past.setTrading(symbol, isTrading, atMs)
    },
    stop: () => feed.stop(),
  })
}

/**
 * Names the market by everything that determines its ids, since data of different markets must
 * never be mixed. Defaults other than seed and rate are omitted; all defaults are `simulated`.
 */
export function simulatedExchangeName({
  seed = DEFAULT_SEED,
  messagesPerSecond = DEFAULT_MESSAGES_PER_SECOND,
  symbols = DEFAULT_SYMBOLS,
  skew = DEFAULT_SKEW,
}: Partial<MarketIdentity>): string {
  const sorted = [...symbols].sort()
  const hash = hash32(...sorted).toString(16)
  const others = [
    ...(sorted.join() === [...DEFAULT_SYMBOLS].sort().join() ? [] : [`symbols=${hash.padStart(8, '0')}`]),
    ...(skew === DEFAULT_SKEW ? [] : [`skew=${skew}`]),
  ]
  if (seed === DEFAULT_SEED && messagesPerSecond === DEFAULT_MESSAGES_PER_SECOND && others.length === 0) {
    return 'simulated'
  }
  return `simulated:${[`seed=${seed}`, `rate=${messagesPerSecond}`, ...others].join(',')}`
}
