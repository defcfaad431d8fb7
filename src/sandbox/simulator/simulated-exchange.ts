import { systemClock, wallMs } from '../../foundation/runtime/clock.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { type Exchange, type ExchangeOptions, openExchangeServer } from './exchange-server.ts'
import { DEFAULT_SYMBOLS, parseSymbols } from './market/instruments.ts'
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
  /** Average over all symbols and stream types. Default: 300. */
  readonly messagesPerSecond?: number
  /**
   * 0: all symbols trade equally; 1 (the default): the n-th most popular has 1/n of the messages of
   * the first.
   */
  readonly skew?: number
  /** How far back REST reaches. Default: a day. */
  readonly historyMinutes?: number
}

export const DEFAULT_SEED = 1
export const DEFAULT_MESSAGES_PER_SECOND = 300
const DEFAULT_SKEW = 1
const DEFAULT_HISTORY_MINUTES = 24 * 60
export const MOST_MESSAGES_PER_SECOND = 200_000

/**
 * Starts the simulated exchange. The market is a function of its identity and the time. After a
 * restart it continues as if it had never stopped, and REST has the events of the time without
 * connections.
 *
 * @throws {TapelineError} `INPUT` for an invalid option, `ENVIRONMENT` for a port that stays taken
 */
export async function startSimulatedExchange(options: SimulatedExchangeOptions = {}): Promise<Exchange> {
  const identity = marketIdentity(options)
  const { limits, clock = systemClock(), historyMinutes = DEFAULT_HISTORY_MINUTES } = options
  const markets = openMarket(identity)
  const source = simulatedExchangeName(identity)
  const streams = new StreamServer({ source, ownTimeUnit: null, limits, clock })
  const feed = new MarketFeed(markets, streams)
  const past = new MarketHistory({ markets, historyMinutes, nowMs: () => wallMs(clock) })
  return openExchangeServer(options, {
    streams,
    past,
    faultSeed: identity.seed,
    setTrading(symbol, isTrading) {
      // Both use the same moment; otherwise a frame could have ids that REST does not have.
      const atMs = wallMs(clock)
      if (feed.setTrading(symbol, isTrading, atMs)) past.setTrading(symbol, isTrading, atMs)
    },
    stop: () => feed.stop(),
  })
}

function marketIdentity(options: SimulatedExchangeOptions): MarketIdentity {
  const { symbols, wrong } = parseSymbols(options.symbols ?? DEFAULT_SYMBOLS)
  if (symbols.length === 0 || wrong.length > 0) {
    throw new TapelineError('INPUT', `symbols: expected names such as BTCUSDT, got "${wrong.join(', ')}".`)
  }
  const {
    seed = DEFAULT_SEED,
    messagesPerSecond = DEFAULT_MESSAGES_PER_SECOND,
    skew = DEFAULT_SKEW,
  } = options
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new TapelineError('INPUT', `seed: expected a whole number, 0 or more, got ${seed}.`)
  }
  if (!(messagesPerSecond > 0 && messagesPerSecond <= MOST_MESSAGES_PER_SECOND)) {
    throw new TapelineError(
      'INPUT',
      `rate: expected messages per second above 0 and at most ${MOST_MESSAGES_PER_SECOND}, got ${messagesPerSecond}.`,
    )
  }
  if (!(skew >= 0 && skew <= 3)) {
    throw new TapelineError('INPUT', `skew: expected a number from 0 to 3, got ${skew}.`)
  }
  return { symbols, seed, messagesPerSecond, skew }
}

/**
 * Names the market by everything that determines its ids, since data of different markets must
 * never be mixed. Defaults other than seed and rate are omitted. With all defaults the name is
 * `simulated`.
 */
export function simulatedExchangeName({
  seed = DEFAULT_SEED,
  messagesPerSecond = DEFAULT_MESSAGES_PER_SECOND,
  symbols = DEFAULT_SYMBOLS,
  skew = DEFAULT_SKEW,
}: Partial<MarketIdentity>): string {
  const sorted = [...symbols].sort()
  const hash = hash32(...sorted)
    .toString(16)
    .padStart(8, '0')
  const others = [
    ...(sorted.join() === [...DEFAULT_SYMBOLS].sort().join() ? [] : [`symbols=${hash}`]),
    ...(skew === DEFAULT_SKEW ? [] : [`skew=${skew}`]),
  ]
  if (seed === DEFAULT_SEED && messagesPerSecond === DEFAULT_MESSAGES_PER_SECOND && others.length === 0) {
    return 'simulated'
  }
  return `simulated:${[`seed=${seed}`, `rate=${messagesPerSecond}`, ...others].join(',')}`
}
