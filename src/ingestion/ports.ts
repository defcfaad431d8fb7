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
 * The world as ingestion meets it: time, chance, the exchange and Kafka, and nothing else. A simulation supplies
 * another, in which the same code lives a day in seconds.
 */
export interface Ports {
  readonly clock: Clock
  /** A number in [0, 1). */
  readonly random: () => number
  readonly exchange: {
    /** What the exchange says of itself. @throws when it cannot be reached */
    askExchange(signal: AbortSignal): Promise<ExchangeAnswer>
    /** What REST says of itself, asked for times in this unit. @throws when it cannot be asked */
    askRest(unit: TimeUnit, signal: AbortSignal): Promise<ExchangeAnswer>
    /** The symbols that the exchange knows, with their status. @throws when REST cannot be asked */
    symbols(signal: AbortSignal): Promise<ReadonlyMap<string, string>>
    /** Its clock, milliseconds since the Unix epoch. @throws when REST cannot be asked */
    serverTimeMs(signal: AbortSignal): Promise<number>
    fetchTrades(identity: ExchangeIdentity): FetchTrades
    readonly openSocket: OpenSocket
  }
  readonly kafka: KafkaPort
}

/** The real one. */
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
