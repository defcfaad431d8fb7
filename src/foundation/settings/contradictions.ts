import { venueProblems } from '../binance/venue.ts'
import type { SettingName, SettingValues } from './definitions.ts'

const TOPICS = [
  'KAFKA_TRADES_TOPIC',
  'KAFKA_BOOK_TICKER_TOPIC',
  'KAFKA_DEPTH_TOPIC',
  'KAFKA_GAPS_TOPIC',
  'KAFKA_CHECKPOINTS_TOPIC',
  'KAFKA_DEAD_LETTERS_TOPIC',
  'KAFKA_ARCHIVED_DAYS_TOPIC',
] as const

const PORTS = ['INGEST_PORT', 'CONSUMER_PORT', 'ARCHIVE_PORT', 'DASHBOARD_PORT'] as const

type NumberName = {
  [Name in SettingName]: number extends SettingValues[Name] ? Name : never
}[SettingName]

/** Returns the contradictions between settings that are valid alone, one line each. */
export function contradictions(values: SettingValues): string[] {
  const shown = (name: SettingName) => `${name}=${values[name]}`
  const problems = venueProblems({
    wsUrl: values.BINANCE_WS_URL,
    restUrl: values.BINANCE_REST_URL,
    venue: values.VENUE ?? null,
  })
  const refuse = (isWrong: boolean, subject: string, expected: string) => {
    if (isWrong) problems.push(`${subject}: expected ${expected}`)
  }
  const atMost = (name: NumberName, limit: NumberName, times = 1, share = '') => {
    const [value = 0, most = Number.POSITIVE_INFINITY] = [values[name], values[limit]]
    refuse(value * times > most, shown(name), `at most ${share}${shown(limit)}`)
  }
  const distinct = (names: readonly SettingName[], what: string) => {
    for (const same of Map.groupBy(names, (name) => values[name]).values())
      refuse(same.length > 1, same.map(shown).join(' and '), `a different ${what} for each`)
  }

  atMost('KAFKA_HEARTBEAT_INTERVAL_MS', 'KAFKA_SESSION_TIMEOUT_MS', 3, 'a third of ')
  refuse(
    values.KAFKA_SESSION_TIMEOUT_MS > values.KAFKA_REBALANCE_TIMEOUT_MS,
    shown('KAFKA_REBALANCE_TIMEOUT_MS'),
    `at least ${shown('KAFKA_SESSION_TIMEOUT_MS')}`,
  )
  atMost('KAFKA_FETCH_MAX_WAIT_MS', 'FLUSH_INTERVAL_MS', 4, 'a quarter of ')
  atMost('DB_POOL_MIN', 'DB_POOL_MAX')
  atMost('BACKOFF_INITIAL_MS', 'BACKOFF_MAX_MS')
  atMost('KAFKA_MIN_INSYNC_REPLICAS', 'KAFKA_REPLICATION_FACTOR')

  const { KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD } = values
  const hasLogin = KAFKA_SASL_USERNAME !== undefined && KAFKA_SASL_PASSWORD !== undefined
  refuse(
    KAFKA_SASL_MECHANISM !== undefined && !hasLogin,
    shown('KAFKA_SASL_MECHANISM'),
    'KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD as well',
  )
  refuse(
    KAFKA_SASL_MECHANISM === undefined && KAFKA_SASL_USERNAME !== undefined,
    shown('KAFKA_SASL_USERNAME'),
    'KAFKA_SASL_MECHANISM as well',
  )
  const { KAFKA_TLS, KAFKA_TLS_CA, KAFKA_TLS_CERT, KAFKA_TLS_KEY } = values
  const hasPair = (KAFKA_TLS_CERT === undefined) === (KAFKA_TLS_KEY === undefined)
  refuse(!hasPair, 'KAFKA_TLS_CERT and KAFKA_TLS_KEY', 'both or none')
  const isUnused = !KAFKA_TLS && (KAFKA_TLS_CA ?? KAFKA_TLS_CERT) !== undefined
  refuse(isUnused, shown('KAFKA_TLS'), 'true because KAFKA_TLS_CA or KAFKA_TLS_CERT is set')
  refuse(
    values.ARCHIVE_S3_ENDPOINT !== undefined && !values.ARCHIVE_URL.startsWith('s3://'),
    shown('ARCHIVE_URL'),
    's3://bucket/prefix because ARCHIVE_S3_ENDPOINT is set',
  )
  refuse(
    values.RETENTION_ARCHIVED_ONLY && values.RETENTION_DAYS === undefined,
    shown('RETENTION_ARCHIVED_ONLY'),
    'RETENTION_DAYS as well',
  )
  distinct(TOPICS, 'topic')
  distinct(PORTS, 'port')
  return problems
}
