import { type Clock, systemClock } from '../../foundation/runtime/clock.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { type Exchange, openExchangeServer } from './exchange-server.ts'
import { DEFAULT_SYMBOLS, parseSymbols } from './market/instruments.ts'
import { openMarket } from './market/market.ts'
import { MarketHistory } from './market/market-history.ts'
import type { MarketIdentity } from './market/market-plan.ts'
import { hash32 } from './market/random.ts'
import { MarketFeed } from './market-feed.ts'
import { DEFAULT_REST_LIMITS, type RestLimits } from './server/rest-weights.ts'
import { DEFAULT_LIMITS, type StreamLimits } from './server/stream-connection.ts'
import { StreamServer } from './server/stream-server.ts'

export interface SimulatedExchangeOptions {
  /** 0 (the default) means any free port. */
  readonly port?: number
  /** How long to wait for a taken port. Default: 5,000. */
  readonly portWaitMs?: number
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
  readonly limits?: Partial<StreamLimits>
  readonly restLimits?: Partial<RestLimits>
  readonly clock?: Clock
  /** Whether `/faults` is served, in addition to the exchange's API. */
  readonly faultApi?: boolean
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
  const clock = options.clock ?? systemClock()
  const markets = openMarket(identity)
  const limits = { ...DEFAULT_LIMITS, ...options.limits }
  const source = simulatedExchangeName(identity)
  const streams = new StreamServer({ source, ownTimeUnit: null, limits, clock })
  const nowMs = () => Math.floor(clock.wallMicros() / 1_000)
  const feed = new MarketFeed({ markets, streams, clock })
  const history = new MarketHistory({
    markets,
    historyMinutes: options.historyMinutes ?? DEFAULT_HISTORY_MINUTES,
    nowMs,
  })
  const exchange = await openExchangeServer({
    port: options.port ?? 0,
    portWaitMs: options.portWaitMs ?? 5_000,
    source,
    ownTimeUnit: null,
    streams,
    past: history,
    market: {
      setTrading(symbol, isTrading) {
        // Both use the same moment; otherwise a frame could have ids that REST does not have.
        const atMs = nowMs()
        if (feed.setTrading(symbol, isTrading, atMs)) history.setTrading(symbol, isTrading, atMs)
      },
    },
    restLimits: { ...DEFAULT_REST_LIMITS, ...options.restLimits },
    clock,
    faultSeed: identity.seed,
    faultApi: options.faultApi ?? false,
  })
  return {
    ...exchange,
    async close() {
      feed.stop()
      await exchange.close()
    },
  }
}

function marketIdentity(options: SimulatedExchangeOptions): MarketIdentity {
  const { symbols, wrong } = parseSymbols(options.symbols ?? DEFAULT_SYMBOLS)
  if (symbols.length === 0 || wrong.length > 0) {
    throw new TapelineError('INPUT', `symbols: expected names such as BTCUSDT, got "${wrong.join(', ')}".`)
  }
  const identity = {
    symbols,
    seed: options.seed ?? DEFAULT_SEED,
    messagesPerSecond: options.messagesPerSecond ?? DEFAULT_MESSAGES_PER_SECOND,
    skew: options.skew ?? DEFAULT_SKEW,
  }
  if (!Number.isSafeInteger(identity.seed) || identity.seed < 0) {
    throw new TapelineError('INPUT', `seed: expected a whole number, 0 or more, got ${identity.seed}.`)
  }
  const { messagesPerSecond } = identity
  if (!(messagesPerSecond > 0 && messagesPerSecond <= MOST_MESSAGES_PER_SECOND)) {
    throw new TapelineError(
      'INPUT',
      `rate: expected messages per second above 0 and at most ${MOST_MESSAGES_PER_SECOND}, got ${messagesPerSecond}.`,
    )
  }
  if (!(identity.skew >= 0 && identity.skew <= 3)) {
    throw new TapelineError('INPUT', `skew: expected a number from 0 to 3, got ${identity.skew}.`)
  }
  return identity
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
