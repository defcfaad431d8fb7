import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { exchangeIdentity } from '../src/foundation/binance/venue.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { withoutPassword } from '../src/foundation/runtime/without-password.ts'
import { SETTING_NAMES } from '../src/foundation/settings/definitions.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'

/** An invalid value for every setting. */
const WRONG = Object.fromEntries(SETTING_NAMES.map((name) => [name, wrongFor(name)]))

function wrongFor(name: string): string {
  if (name === 'DATABASE_URL') return 'mysql://user:hunter2@host/db'
  if (name === 'ARCHIVE_URL') return 'gs://bucket'
  if (name === 'ARCHIVE_S3_REGION') return 'with space'
  if (/USERNAME|GROUP_ID|HTTP_HOST/.test(name)) return 'with space'
  if (name === 'BINANCE_API_KEY') return 'with space'
  if (/TOPIC$/.test(name)) return 'no spaces allowed'
  return ' ? '
}

const load = (environment: Record<string, string>, cwd = tmpdir()) => loadSettings(environment, { cwd })

function failure(environment: Record<string, string>, cwd?: string): string {
  try {
    load(environment, cwd)
  } catch (error) {
    assert.ok(error instanceof TapelineError)
    assert.deepEqual([error.code, error.exitCode], ['SETTINGS', 2])
    return error.message
  }
  return assert.fail('The settings were accepted')
}

function inFolder(files: Record<string, string>, work: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-settings-'))
  try {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
    work(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

test('reports every invalid setting, its value and the expected format in one error', () => {
  const message = failure(WRONG)
  // Any text is a valid path or password.
  const anyText = /^(KAFKA_TLS_(CA|CERT|KEY)|KAFKA_SASL_PASSWORD|DATA_DIR|ARCHIVE_TEMP|ARCHIVE_CACHE)$/
  for (const name of SETTING_NAMES.filter((name) => !anyText.test(name)))
    assert.match(message, new RegExp(`^  ${name}=.*: expected .+`, 'm'), name)
  assert.doesNotMatch(message, /hunter2/)
})

test('shows secrets in no error', () => {
  const message = failure({
    KAFKA_SASL_MECHANISM: 'PLAIN',
    KAFKA_SASL_PASSWORD: 'hunter2',
    KAFKA_SASL_PASSWORD_FILE: '/nowhere',
    DATABASE_URL: 'postgres://user:hunter2@host',
  })
  assert.match(message, /DATABASE_URL=postgres:\/\/user:\*\*\*@host: expected/)
  assert.doesNotMatch(message, /hunter2/)
  assert.equal(withoutPassword('postgres://u:p@h/d?password=x'), 'postgres://u:***@h/d?password=***')
})

test('uses the defaults of unset settings, and treats empty texts as unset', () => {
  const settings = load({ SYMBOLS: ' ', KAFKA_BROKERS: '' })
  assert.deepEqual(settings.SYMBOLS, ['BTCUSDT', 'ETHUSDT', 'BNBUSDT'])
  assert.deepEqual(settings.STREAM_TYPES, ['trade', 'aggTrade', 'bookTicker'])
  assert.deepEqual(settings.KAFKA_BROKERS, ['localhost:9092'])
  assert.equal(settings.KAFKA_QUEUE_MAX_BYTES, 64 * 1024 * 1024)
  assert.equal(settings.BATCH_SIZE, 500)
  assert.equal(settings.FLUSH_INTERVAL_MS, 2000)
  assert.equal(settings.AUTO_OFFSET_RESET, 'latest')
  assert.equal(settings.KAFKA_REPLICATION_FACTOR, undefined)
  assert.equal(settings.isSet('KAFKA_BROKERS'), false)
})

test('accepts symbols in any case, brokers without a port and lists with spaces', () => {
  const lists = { SYMBOLS: 'btcusdt, ETHusdt,BTCUSDT', KAFKA_BROKERS: 'kafka, other:29092' }
  const settings = load({ ...lists, SHARD: '1/4' })
  assert.deepEqual(settings.SYMBOLS, ['BTCUSDT', 'ETHUSDT'])
  assert.deepEqual(settings.KAFKA_BROKERS, ['kafka:9092', 'other:29092'])
  assert.deepEqual(settings.SHARD, { index: 1, count: 4 })
  assert.equal(settings.isSet('SHARD'), true)
})

test('refuses a misspelled setting in .env, and ignores unrelated names', () => {
  inFolder({ '.env': 'KAFKA_BROKER=kafka:9092\nSYMBOL=BTCUSDT\nEDITOR=vi\n' }, (folder) => {
    const message = failure({}, folder)
    assert.match(message, /KAFKA_BROKER in \.env: no such setting; did you mean KAFKA_BROKERS\?/)
    assert.match(message, /SYMBOL in \.env: .* SYMBOLS\?/)
    assert.doesNotMatch(message, /EDITOR/)
  })
})

test('prefers the environment to .env', () => {
  inFolder({ '.env': 'BATCH_SIZE=100\nFLUSH_INTERVAL_MS=500\n' }, (folder) => {
    const settings = load({ BATCH_SIZE: '200' }, folder)
    assert.equal(settings.BATCH_SIZE, 200)
    assert.equal(settings.FLUSH_INTERVAL_MS, 500)
  })
})

test('reads a secret from the file named by NAME_FILE', () => {
  inFolder({ password: 'from-file\n' }, (folder) => {
    const login = { KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512', KAFKA_SASL_USERNAME: 'tapeline' }
    const settings = load({ ...login, KAFKA_SASL_PASSWORD_FILE: join(folder, 'password') })
    assert.equal(settings.KAFKA_SASL_PASSWORD, 'from-file')
  })
})

test('by default a consumer that pauses for 5 s keeps its partitions, and a dead one is replaced as soon as brokers allow', () => {
  const { KAFKA_SESSION_TIMEOUT_MS: session, KAFKA_HEARTBEAT_INTERVAL_MS: heartbeat } = load({})
  // A broker's default `group.min.session.timeout.ms` is 6000.
  assert.equal(session, 6000)
  assert.ok(session - heartbeat >= 5500, 'the last heartbeat before the pause may be a whole interval old')
})

test('refuses contradictory settings', () => {
  const message = failure({
    ...{ KAFKA_HEARTBEAT_INTERVAL_MS: '5000', KAFKA_SESSION_TIMEOUT_MS: '6000' },
    ...{ KAFKA_REBALANCE_TIMEOUT_MS: '5000', KAFKA_FETCH_MAX_WAIT_MS: '1000' },
    ...{ DB_POOL_MIN: '5', DB_POOL_MAX: '4', BACKOFF_INITIAL_MS: '2000', BACKOFF_MAX_MS: '1000' },
    ...{ KAFKA_TLS_CERT: 'cert.pem', KAFKA_SASL_USERNAME: 'u', INGEST_PORT: '8081' },
    ...{ KAFKA_TRADES_TOPIC: 'x', KAFKA_GAPS_TOPIC: 'x' },
    ...{ KAFKA_MIN_INSYNC_REPLICAS: '3', KAFKA_REPLICATION_FACTOR: '2' },
  })
  for (const name of [
    'KAFKA_HEARTBEAT_INTERVAL_MS=5000',
    'KAFKA_REBALANCE_TIMEOUT_MS=5000',
    'KAFKA_FETCH_MAX_WAIT_MS=1000',
    'DB_POOL_MIN=5',
    'BACKOFF_INITIAL_MS=2000',
    'KAFKA_MIN_INSYNC_REPLICAS=3: expected at most KAFKA_REPLICATION_FACTOR=2',
    'KAFKA_TLS_CERT and KAFKA_TLS_KEY',
    'KAFKA_TLS=false',
    'KAFKA_SASL_USERNAME=u',
    'KAFKA_TRADES_TOPIC=x and KAFKA_GAPS_TOPIC=x',
    'INGEST_PORT=8081 and CONSUMER_PORT=8081',
  ])
    assert.ok(message.includes(name), `${name} is not named in:\n${message}`)
})

test('refuses streams and REST of different exchanges, and a VENUE that contradicts a known host', () => {
  const us = { BINANCE_WS_URL: 'wss://stream.binance.us:9443', BINANCE_REST_URL: 'https://api.binance.us' }
  assert.equal(load({ ...us, VENUE: 'binance-us' }).VENUE, 'binance-us')
  assert.equal(load({ BINANCE_WS_URL: 'wss://data-stream.binance.vision' }).VENUE, undefined)
  const { BINANCE_WS_URL } = us
  const mixed = /expected a host of binance-us, .* but this is a host of binance/
  assert.throws(() => load({ BINANCE_WS_URL }), mixed)
  assert.throws(() => load({ ...us, VENUE: 'binance' }), /VENUE=binance: expected binance-us, or unset/)
  assert.throws(() => load({ VENUE: 'simulated' }), /VENUE=simulated: expected a name such as/)
})

test('identifies an exchange by its header, its host or VENUE, and refuses REST of another', () => {
  const own = { wsUrl: 'ws://proxy:1', restUrl: 'http://proxy:1', venue: null }
  assert.equal(exchangeIdentity('simulated', own), 'simulated')
  assert.equal(exchangeIdentity(null, { ...own, venue: 'kraken' }), 'kraken')
  const testnet = { ...own, wsUrl: 'wss://stream.testnet.binance.vision' }
  assert.throws(() => exchangeIdentity(null, testnet), /http:\/\/proxy:1 announces no name/)
  const restUrl = 'https://testnet.binance.vision'
  assert.equal(exchangeIdentity(null, { ...testnet, restUrl }), 'binance-testnet')
  assert.throws(() => exchangeIdentity(null, own), /announces no name/)
  assert.throws(
    () => exchangeIdentity('simulated', { ...own, restUrl: 'https://api.binance.com' }),
    /is "simulated", and BINANCE_REST_URL=https:\/\/api.binance.com is binance/,
  )
})
