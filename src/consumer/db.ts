import {
  EXCHANGE_IDENTITY_KEY,
  markOf,
  parseMark,
  rejectOtherExchange,
  rejectOtherTimeUnit,
  rejectOtherTopics,
} from '../foundation/kafka/exchange-identity-mark.ts'
import { PartitionFetcher } from '../foundation/kafka/partition-fetcher.ts'
import { latestValue } from '../foundation/kafka/read-range.ts'
import { UNMARKED_TIME_UNIT } from '../foundation/market/time-unit.ts'
import { retry, unlessAborted } from '../foundation/runtime/backoff.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import type { Database } from '../foundation/store/database.ts'
import { failureKind } from '../foundation/store/failures.ts'
import { mark, readFact } from '../foundation/store/meta.ts'
import { checkSchema, migrate } from '../foundation/store/migrate.ts'
import { openPostgres } from '../foundation/store/postgres.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import type { ConsumerConfig } from './config.ts'

/**
 * Opens the database and migrates its schema, or only checks it. Waits while the database is
 * unavailable.
 *
 * @throws TapelineError `DATABASE` when the database does not fit this program; the signal's reason
 *   when it aborts
 */
export async function openDatabase(
  config: ConsumerConfig,
  ports: ServicePorts,
  signal: AbortSignal,
): Promise<Database> {
  const { log } = ports
  const { databaseUrl: url, poolMin, poolMax, migrateOnStart } = config
  const database = openPostgres({ url, poolMin, poolMax, applicationName: 'tapeline-consumer' })
  const prepare = async () => {
    if (!migrateOnStart) return checkSchema(database)
    const { from, to, notAllowed } = await migrate(database, { signal })
    if (from !== to) log.info({ from, to }, 'Schema brought up to date')
    if (notAllowed.length > 0) {
      log.warn(
        { notAllowed },
        'The roles were not created, since this user may not create roles; the schema works without them',
      )
    }
  }
  const warn = (error: unknown) => {
    if (failureKind(error) !== 'retry' || isTapelineError(error)) throw error
    log.warn({ err: error }, `The database cannot be used yet, retrying: ${describeError(error)}`)
  }
  try {
    await retry(() => unlessAborted(prepare(), signal), warn, config.backoff, ports, signal)
    return database
  } catch (error) {
    await database.close()
    throw error
  }
}

/**
 * While neither side has an exchange identity, they cannot be mixed up, so the topics are checked
 * only this often.
 */
const ASK_AGAIN_MS = 5000

/**
 * How long a database without an exchange identity waits for that of the topics. A database with
 * one waits until it is read.
 */
const UNMARKED_LIMIT_MS = 5000

/**
 * Creates a check that messages and rows come from the same exchange, with the same unit of time.
 * Ingestion writes both into the checkpoints topic before its first message. After the first
 * success there is no further check. It passes where neither side has an identity, as with other
 * producers.
 *
 * @returns a function that rejects with a TapelineError if not; false if it must be called again
 */
export function sourceCheck(
  config: ConsumerConfig,
  database: Database,
  { clock, log }: ServicePorts,
): () => Promise<boolean> {
  let warned = false
  let askAtMs = Number.NEGATIVE_INFINITY
  return async () => {
    if (clock.monotonicMs() < askAtMs) return false
    const isMarked = (await readFact(database, 'source')) !== null
    const limitMs = isMarked ? undefined : UNMARKED_LIMIT_MS
    const { checkpoints } = config.topics
    const fetcher = new PartitionFetcher(config.kafka, 'tapeline-latest-value', [checkpoints])
    const text = await latestValue(fetcher, checkpoints, EXCHANGE_IDENTITY_KEY, limitMs).catch(
      (error: unknown) => {
        // Rows without an identity accept messages of any source, so a broker that is unavailable
        // must not delay them.
        if (isMarked || failureKind(error) !== 'retry') throw error
        log.debug(
          { err: error },
          `Reading the exchange identity of the topics failed: ${describeError(error)}`,
        )
        return null
      },
    )
    if (text === null) {
      if (!warned) log.warn('The topics do not name the exchange of their data')
      warned = true
      if (!isMarked) askAtMs = clock.monotonicMs() + ASK_AGAIN_MS
      return false
    }
    const marked = parseMark(text, checkpoints)
    const { source, timeUnit } = marked
    rejectOtherTopics(checkpoints, marked, markOf(marked, config.topics))
    const stored = await database.transaction(async (connection) => {
      const before = await readFact(connection, 'source')
      return {
        source: await mark(connection, 'source', source),
        unit: await mark(connection, 'time_unit', before === null ? timeUnit : UNMARKED_TIME_UNIT),
      }
    })
    const fix =
      'Set DATABASE_URL to a separate database for this source, or KAFKA_BROKERS and the topic names to the right topics.'
    rejectOtherExchange('The tables of this database', stored.source, source, fix)
    rejectOtherTimeUnit('The tables of this database', stored.unit, timeUnit, fix)
    return true
  }
}
