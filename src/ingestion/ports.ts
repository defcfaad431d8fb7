import { askExchange, type ExchangeAnswer } from '../foundation/binance/handshake.ts'
import { fetchIdentity, fetchServerTime, fetchSymbols } from '../foundation/binance/rest.ts'
import { type OpenSocket, openSocket } from '../foundation/binance/stream-socket.ts'
import { type FetchTrades, tradeRest } from '../foundation/binance/trade-rest.ts'
import type { ExchangeIdentity } from '../foundation/kafka/exchange-identity-mark.ts'
import { type KafkaPort, kafkaPort } from '../foundation/kafka/kafka-port.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import type { IngestionConfig } from './config.ts'

/**
 * Everything outside ingestion: time, randomness, the exchange and Kafka. A simulation supplies its
 * own, in which the same code runs a day in seconds.
 */
export interface Ports {
  readonly clock: Clock
  /** A number in [0, 1). */
  readonly random: () => number
  readonly exchange: {
    /** Returns the identity that the stream endpoint announces. @throws if it cannot be reached */
    askExchange(signal: AbortSignal): Promise<ExchangeAnswer>
    /**
     * Returns the identity that REST announces when asked for times in this unit. @throws if REST
     * fails
     */
    askRest(unit: TimeUnit, signal: AbortSignal): Promise<ExchangeAnswer>
    /** Returns the exchange's symbols with their status. @throws if REST fails */
    symbols(signal: AbortSignal): Promise<ReadonlyMap<string, string>>
    /** Returns the exchange's clock, milliseconds since the Unix epoch. @throws if REST fails */
    serverTimeMs(signal: AbortSignal): Promise<number>
    fetchTrades(identity: ExchangeIdentity): FetchTrades
    readonly openSocket: OpenSocket
  }
  readonly kafka: KafkaPort
}

/** The real ports. */
export function ports(config: IngestionConfig, clock: Clock): Ports {
  return {
    clock,
    random: Math.random,
    exchange: {
      askExchange: (signal) => askExchange(config.wsUrl, signal),
      askRest: (unit, signal) => fetchIdentity(config.restUrl, unit, signal),
      symbols: (signal) => fetchSymbols(config.restUrl, signal),
      serverTimeMs: (signal) => fetchServerTime(config.restUrl, signal),
      fetchTrades: ({ source, timeUnit }) =>
        tradeRest(config.restUrl, timeUnit, () => clock.wallMicros() / 1000, config.apiKey, source),
      openSocket,
    },
    kafka: kafkaPort(config.kafka, clock),
  }
}
