import { venueProblems } from '../binance/venue.ts'
import type { SettingValues } from './definitions.ts'

/** Returns the contradictions between settings that are valid alone, one line each. */
export function contradictions(values: SettingValues): string[] {
  const problems: string[] = []
  const expect = (holds: boolean, problem: string) => {
    if (!holds) problems.push(problem)
  }
  problems.push(
    ...venueProblems({
      wsUrl: values.BINANCE_WS_URL,
      restUrl: values.BINANCE_REST_URL,
      venue: values.VENUE ?? null,
    }),
  )
  expect(
    values.KAFKA_HEARTBEAT_INTERVAL_MS * 3 <= values.KAFKA_SESSION_TIMEOUT_MS,
    `KAFKA_HEARTBEAT_INTERVAL_MS=${values.KAFKA_HEARTBEAT_INTERVAL_MS}: expected at most a third of KAFKA_SESSION_TIMEOUT_MS=${values.KAFKA_SESSION_TIMEOUT_MS}`,
  )
  expect(
    values.KAFKA_SESSION_TIMEOUT_MS <= values.KAFKA_REBALANCE_TIMEOUT_MS,
    `KAFKA_REBALANCE_TIMEOUT_MS=${values.KAFKA_REBALANCE_TIMEOUT_MS}: expected at least KAFKA_SESSION_TIMEOUT_MS=${values.KAFKA_SESSION_TIMEOUT_MS}`,
  )
  expect(
    (values.KAFKA_FETCH_MAX_WAIT_MS ?? 0) * 4 <= values.FLUSH_INTERVAL_MS,
    `KAFKA_FETCH_MAX_WAIT_MS=${values.KAFKA_FETCH_MAX_WAIT_MS}: expected at most a quarter of FLUSH_INTERVAL_MS=${values.FLUSH_INTERVAL_MS}`,
  )
  expect(
    values.DB_POOL_MIN <= values.DB_POOL_MAX,
    `DB_POOL_MIN=${values.DB_POOL_MIN}: expected at most DB_POOL_MAX=${values.DB_POOL_MAX}`,
  )
  expect(
    values.BACKOFF_INITIAL_MS <= values.BACKOFF_MAX_MS,
    `BACKOFF_INITIAL_MS=${values.BACKOFF_INITIAL_MS}: expected at most BACKOFF_MAX_MS=${values.BACKOFF_MAX_MS}`,
  )
  expect(
    (values.KAFKA_MIN_INSYNC_REPLICAS ?? 1) <= (values.KAFKA_REPLICATION_FACTOR ?? 100),
    `KAFKA_MIN_INSYNC_REPLICAS=${values.KAFKA_MIN_INSYNC_REPLICAS}: expected at most KAFKA_REPLICATION_FACTOR=${values.KAFKA_REPLICATION_FACTOR}`,
  )
  expect(
    values.KAFKA_SASL_MECHANISM === undefined ||
      (values.KAFKA_SASL_USERNAME !== undefined && values.KAFKA_SASL_PASSWORD !== undefined),
    `KAFKA_SASL_MECHANISM=${values.KAFKA_SASL_MECHANISM}: expected KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD as well`,
  )
  expect(
    values.KAFKA_SASL_MECHANISM !== undefined || values.KAFKA_SASL_USERNAME === undefined,
    `KAFKA_SASL_USERNAME=${values.KAFKA_SASL_USERNAME}: expected KAFKA_SASL_MECHANISM as well`,
  )
  expect(
    (values.KAFKA_TLS_CERT === undefined) === (values.KAFKA_TLS_KEY === undefined),
    'KAFKA_TLS_CERT and KAFKA_TLS_KEY: expected both or none',
  )
  expect(
    values.KAFKA_TLS || (values.KAFKA_TLS_CA === undefined && values.KAFKA_TLS_CERT === undefined),
    'KAFKA_TLS=false: expected true because KAFKA_TLS_CA or KAFKA_TLS_CERT is set',
  )
  for (const repeated of repeats({
    KAFKA_TRADES_TOPIC: values.KAFKA_TRADES_TOPIC,
    KAFKA_BOOK_TICKER_TOPIC: values.KAFKA_BOOK_TICKER_TOPIC,
    KAFKA_GAPS_TOPIC: values.KAFKA_GAPS_TOPIC,
    KAFKA_CHECKPOINTS_TOPIC: values.KAFKA_CHECKPOINTS_TOPIC,
    KAFKA_DEAD_LETTERS_TOPIC: values.KAFKA_DEAD_LETTERS_TOPIC,
  })) {
    problems.push(`${repeated}: expected a different topic for each`)
  }
  for (const repeated of repeats({
    INGEST_PORT: values.INGEST_PORT,
    CONSUMER_PORT: values.CONSUMER_PORT,
    DASHBOARD_PORT: values.DASHBOARD_PORT,
  })) {
    problems.push(`${repeated}: expected a different port for each`)
  }
  return problems
}

/** Returns the names that share a value, as `A=x and B=x`. */
function repeats(named: Readonly<Record<string, string | number>>): string[] {
  const byValue = Map.groupBy(Object.keys(named), (name) => named[name])
  return [...byValue].flatMap(([value, names]) =>
    names.length > 1 ? [names.map((name) => `${name}=${value}`).join(' and ')] : [],
  )
}
