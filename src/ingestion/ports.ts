import { depthRest, type FetchBook } from '../foundation/binance/depth-rest.ts'
import { fetchIdentity, fetchServerTime, fetchSymbols } from '../foundation/binance/rest.ts'
import { askExchange, type ExchangeAnswer, openSocket } from '../foundation/binance/stream-socket.ts'
import { type FetchTrades, tradeRest } from '../foundation/binance/trade-rest.ts'
import type { ExchangeIdentity } from '../foundation/kafka/exchange-identity-mark.ts'
import { kafkaPort } from '../foundation/kafka/kafka-port.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import type { IngestionConfig } from './config.ts'

/** Everything outside ingestion. A simulation supplies its own, and runs a day in seconds. */
export type Ports = Readonly<ReturnType<typeof ports>>

/** The real ports. Requests throw if the exchange cannot be reached or refuses. */
export function ports(config: IngestionConfig, clock: Clock) {
  return {
    clock,
    random: Math.random,
    exchange: {
      askExchange: (signal: AbortSignal): Promise<ExchangeAnswer> => askExchange(config.wsUrl, signal),
      /** Returns the identity that REST announces when asked for times in this unit. */
      askRest: (unit: TimeUnit, signal: AbortSignal): Promise<ExchangeAnswer> =>
        fetchIdentity(config.restUrl, unit, signal),
      symbols: (signal: AbortSignal): Promise<ReadonlyMap<string, string>> =>
        fetchSymbols(config.restUrl, signal),
      /** Returns the exchange's clock, milliseconds since the Unix epoch. */
      serverTimeMs: (signal: AbortSignal) => fetchServerTime(config.restUrl, signal),
      fetchTrades: ({ source, timeUnit }: ExchangeIdentity): FetchTrades =>
        tradeRest(config.restUrl, timeUnit, () => clock.wallMicros() / 1000, config.apiKey, source),
      fetchBook: ({ source }: ExchangeIdentity): FetchBook =>
        depthRest({ restUrl: config.restUrl, wallMs: () => clock.wallMicros() / 1000, source }),
      openSocket,
    },
    kafka: kafkaPort(config.kafka, clock),
  }
}
