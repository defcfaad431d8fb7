import {
  type SimulatedExchangeOptions,
  startSimulatedExchange,
} from '../../src/sandbox/simulator/simulated-exchange.ts'
import { createTestTopics, type TestTopics } from './kafka.ts'
import { readLedger } from './messages.ts'
import { startIngestionProcess } from './services.ts'

/** Short waits between attempts. */
export const FAST = { BACKOFF_INITIAL_MS: '100', BACKOFF_MAX_MS: '1000' }

export type IngestionParts = Awaited<ReturnType<typeof createIngestionParts>>

/** The topics and the simulated exchange of one test, and ingestion's settings for them. */
export async function createIngestionParts(options: SimulatedExchangeOptions = {}) {
  const topics = await createTestTopics({ prefix: 'ingestion' })
  const exchange = await withExchange(topics, { ...topics.env, ...FAST }, options, () => topics.delete())
  return { topics, ...exchange }
}

/** Adds an exchange to topics and settings. @param dispose removes what they belong to */
export async function withExchange(
  topics: TestTopics,
  settings: Readonly<Record<string, string>>,
  options: SimulatedExchangeOptions,
  dispose: () => PromiseLike<void>,
) {
  const exchange = await startSimulatedExchange(options)
  const urls = { BINANCE_WS_URL: exchange.wsUrl, BINANCE_REST_URL: exchange.restUrl }
  const env: Readonly<Record<string, string>> = { ...settings, ...urls }
  return {
    exchange,
    env,
    /** Starts ingestion as a process. @param more further settings */
    ingest: (more: Readonly<Record<string, string>> = {}) => startIngestionProcess({ ...env, ...more }),
    /** The rows in the ledger topic. */
    ledger: () => readLedger(topics.env.KAFKA_GAPS_TOPIC),
    async [Symbol.asyncDispose]() {
      await exchange.close()
      await dispose()
    },
  }
}
