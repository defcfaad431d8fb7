import { topicRetentionMs } from '../foundation/kafka/topic-metadata.ts'
import { repeat } from '../foundation/runtime/backoff.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import type { Database } from '../foundation/store/database.ts'
import { type DatabaseValues, databaseValues } from '../foundation/store/database-facts.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import type { ConsumerConfig } from './config.ts'

/** Last known facts about the database and the topics. */
export interface Environment {
  /** Null until the database has answered, and while it does not. */
  readonly database: DatabaseValues | null
  /**
   * By topic, in milliseconds; infinite where nothing is removed. Empty where this user may not
   * read it.
   */
  readonly retentionMs: ReadonlyMap<string, number>
}

export const NOTHING_KNOWN: Environment = { database: null, retentionMs: new Map() }

/** Counting a ledger of a million rows takes the database a fraction of a second. */
const DATABASE_EVERY_MS = 60_000
const TOPICS_EVERY_MS = 10 * 60_000

export interface EnvironmentProbe {
  readonly known: Environment
  stop(): void
}

/**
 * Queries the database every minute and the brokers every ten minutes. Writing neither waits for
 * this nor fails with it.
 *
 * @param lacking topics that do not exist yet
 */
export function startEnvironmentProbe(
  database: Database,
  { kafka, topics }: ConsumerConfig,
  { clock, log }: ServicePorts,
  lacking: ReadonlySet<string>,
): EnvironmentProbe {
  const stopping = new AbortController()
  let known = NOTHING_KNOWN
  const every = (ms: number, ask: () => Promise<void>) => {
    const askOnce = async () => {
      await ask().catch((error: unknown) =>
        log.debug({ err: error }, `Reading values for metrics failed: ${describeError(error)}`),
      )
      return ms
    }
    void repeat(askOnce, stopping.signal, clock)
  }
  every(DATABASE_EVERY_MS, async () => {
    const values = await databaseValues(database).catch((error: unknown) => {
      // Metrics must not show outdated values as current.
      known = { ...known, database: null }
      throw error
    })
    known = { ...known, database: values }
  })
  every(TOPICS_EVERY_MS, async () => {
    const names = [topics.trades, topics.bookTicker, topics.depth].filter((name) => !lacking.has(name))
    const retentionMs = await topicRetentionMs(kafka, 'tapeline-consumer-retention', names)
    known = { ...known, retentionMs }
  })
  return {
    get known() {
      return known
    },
    stop: () => stopping.abort(),
  }
}
