import { topicRetentionMs } from '../foundation/kafka/topic-metadata.ts'
import { sleep } from '../foundation/runtime/backoff.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import type { Database } from '../foundation/store/database.ts'
import { type DatabaseValues, databaseValues } from '../foundation/store/database-facts.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
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

/**
 * Queries the database every minute and the brokers every ten minutes. Writing neither waits for
 * this nor fails with it.
 */
export class EnvironmentProbe {
  readonly #database: Database
  readonly #config: ConsumerConfig
  readonly #clock: Clock
  readonly #log: Logger
  readonly #stopping = new AbortController()
  #known: Environment = NOTHING_KNOWN

  constructor(database: Database, config: ConsumerConfig, clock: Clock, log: Logger) {
    this.#database = database
    this.#config = config
    this.#clock = clock
    this.#log = log
  }

  get known(): Environment {
    return this.#known
  }

  start(): void {
    void this.#every(DATABASE_EVERY_MS, async () => {
      const database = await databaseValues(this.#database).catch((error: unknown) => {
        // Metrics must not show outdated values as current.
        this.#known = { ...this.#known, database: null }
        throw error
      })
      this.#known = { ...this.#known, database }
    })
    void this.#every(TOPICS_EVERY_MS, async () => {
      const { kafka, topics } = this.#config
      const names = [topics.trades, topics.bookTicker]
      const retentionMs = await topicRetentionMs(kafka, 'tapeline-consumer-retention', names)
      this.#known = { ...this.#known, retentionMs }
    })
  }

  stop(): void {
    this.#stopping.abort()
  }

  async #every(ms: number, ask: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      try {
        await ask()
      } catch (error) {
        this.#log.debug({ err: error }, `Reading values for metrics failed: ${describeError(error)}`)
      }
      // Rejects when stopped; the loop condition checks for that.
      await sleep(ms, signal, this.#clock).catch(() => {})
    }
  }
}
