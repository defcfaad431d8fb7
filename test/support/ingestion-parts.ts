import type { Gap } from '../../src/foundation/market/gap.ts'
import type { Exchange } from '../../src/sandbox/simulator/exchange-server.ts'
import {
  type SimulatedExchangeOptions,
  startSimulatedExchange,
} from '../../src/sandbox/simulator/simulated-exchange.ts'
import { createTestTopics, type TestTopics } from './kafka.ts'
import { readLedger } from './messages.ts'
import { type IngestionProcess, startIngestionProcess } from './services.ts'

/** Short waits between attempts. */
export const FAST = { BACKOFF_INITIAL_MS: '100', BACKOFF_MAX_MS: '1000' }

/** The topics and the simulated exchange of one test, and ingestion's settings for them. */
export interface IngestionParts extends AsyncDisposable {
  readonly topics: TestTopics
  readonly exchange: Exchange
  readonly env: Readonly<Record<string, string>>
  /** Starts ingestion as a process. @param more further settings */
  ingest(more?: Readonly<Record<string, string>>): Promise<IngestionProcess>
  /** The rows in the ledger topic. */
  ledger(): Promise<Gap[]>
}

export async function createIngestionParts(options: SimulatedExchangeOptions = {}): Promise<IngestionParts> {
  const topics = await createTestTopics({ prefix: 'ingestion' })
  return {
    topics,
    ...(await withExchange(topics, { ...topics.env, ...FAST }, options, () => topics.delete())),
  }
}

/** Adds an exchange to topics and settings. @param dispose removes what they belong to */
export async function withExchange(
  topics: TestTopics,
  settings: Readonly<Record<string, string>>,
  options: SimulatedExchangeOptions,
  dispose: () => PromiseLike<void>,
): Promise<Omit<IngestionParts, 'topics'>> {
  const exchange = await startSimulatedExchange(options)
  const env = { ...settings, BINANCE_WS_URL: exchange.wsUrl, BINANCE_REST_URL: exchange.restUrl }
  return {
    exchange,
    env,
    ingest: (more = {}) => startIngestionProcess({ ...env, ...more }),
    ledger: () => readLedger(topics.env.KAFKA_GAPS_TOPIC),
    async [Symbol.asyncDispose]() {
      await exchange.close()
      await dispose()
    },
  }
}
