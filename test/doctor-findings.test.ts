import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { startHealthServer } from '../src/foundation/telemetry/health-server.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { ofRefusals } from '../src/tools/doctor/exchange.ts'
import type { Finding } from '../src/tools/doctor/finding.ts'
import { checkPorts } from '../src/tools/doctor/machine.ts'
import { columns } from './support/columns.ts'
import { createConsumerParts } from './support/consumer-parts.ts'
import { databaseKinds } from './support/database.ts'
import { startTapeline } from './support/processes.ts'

const native = databaseKinds().find(({ name }) => name === 'native')

/** Errors and warnings. */
async function diagnose(
  env: Readonly<Record<string, string>>,
  exitCode: number,
): Promise<Map<string, Finding>> {
  await using doctor = startTapeline(['doctor', '--json'], { env })
  await doctor.assertExit(exitCode, 60_000)
  assert.doesNotMatch(doctor.output(), /secret-of-the-test/)
  const findings: Finding[] = JSON.parse(doctor.output())
  return new Map(findings.map((finding) => [finding.what, finding]))
}

async function freePorts() {
  const port = async () => String(await freePort())
  const services = { INGEST_PORT: await port(), CONSUMER_PORT: await port(), ARCHIVE_PORT: await port() }
  return { ...services, DASHBOARD_PORT: await port() }
}

test('finds nothing in a healthy setup, reports each fault with its fix, and changes nothing', {
  ...(native?.skip === undefined ? {} : { skip: native.skip }),
}, async () => {
  await using parts = await createConsumerParts()
  await using exchange = disposable(
    await startSimulatedExchange({ symbols: ['BTCUSDT', 'ETHUSDT'], messagesPerSecond: 10 }),
  )
  const ports = await freePorts()
  const env = {
    ...parts.env,
    ...ports,
    KAFKA_PARTITIONS: '3',
    SYMBOLS: 'BTCUSDT,ETHUSDT',
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
  }
  const bad = (findings: ReadonlyMap<string, Finding>) =>
    [...findings.values()].filter(({ verdict }) => verdict === 'bad').map(({ what }) => what)

  const empty = await diagnose(env, 1)
  assert.deepEqual(bad(empty), ['schema'])
  assert.match(empty.get('schema')?.fix ?? '', /tapeline migrate/)

  await migrate(parts.database)
  const well = await diagnose(env, 0)
  for (const what of [
    ...['Node', 'Kafka', 'database', 'TimescaleDB', 'pooler', 'writing', 'search_path', 'session settings'],
    ...['lock limit', 'schema', 'roles', 'exchange clock', 'symbols', 'INGEST_PORT', 'ARCHIVE_PORT'],
  ])
    assert.equal(well.get(what)?.verdict, 'good', `${what}: ${well.get(what)?.text}`)
  assert.match(well.get('TimescaleDB')?.text ?? '', /^2\.\d+\.\d+, apache licence/)
  assert.match(well.get('exchange WebSocket')?.text ?? '', /simulated/)

  const taken = createServer().listen(Number(ports.CONSUMER_PORT), '127.0.0.1')
  const { database } = parts
  await database.query("INSERT INTO schema_migrations (version, name) VALUES (999, 'of tomorrow')")
  const { KAFKA_GAPS_TOPIC: gaps, KAFKA_TRADES_TOPIC: trades } = parts.topics.env
  const faults = { KAFKA_GAPS_TOPIC: `${gaps}.missing`, KAFKA_PARTITIONS: '5', SYMBOLS: 'BTCUSDT,NOSUCH' }
  const wrong = await diagnose({ ...env, ...faults }, 1).finally(() => taken.close())
  assert.deepEqual(bad(wrong).sort(), ['CONSUMER_PORT', 'schema', 'symbols', `topic ${gaps}.missing`].sort())
  assert.match(wrong.get('symbols')?.text ?? '', /NOSUCH/)
  assert.match(wrong.get('schema')?.text ?? '', /newer|999/)
  assert.match(wrong.get(`topic ${trades}`)?.text ?? '', /partitions is 3, expected 5/)

  await database.query('DROP EXTENSION timescaledb CASCADE')
  const away = new URL(parts.databaseUrl)
  const plain = await diagnose({ ...env, BINANCE_REST_URL: 'http://127.0.0.1:1' }, 1)
  assert.deepEqual(bad(plain).sort(), ['TimescaleDB', 'exchange'])
  assert.match(plain.get('TimescaleDB')?.fix ?? '', /migrate/)
  away.port = '1'
  away.password = 'secret-of-the-test'
  const gone = await diagnose({ ...env, DATABASE_URL: away.href, KAFKA_BROKERS: '127.0.0.1:1' }, 1)
  assert.deepEqual(bad(gone).sort(), ['Kafka', 'database'])
})

test('a port used by a running service is no fault, unless that service is unhealthy', async () => {
  const ports = await freePorts()
  const consumer = { ready: true, reason: '' }
  const server = await startHealthServer(
    { host: '127.0.0.1', port: Number(ports.CONSUMER_PORT), portSetting: 'CONSUMER_PORT' },
    {
      readiness: () => consumer,
      status: () => ({ service: 'consumer', ...consumer }),
      metrics: async () => '',
    },
  )
  try {
    const find = async () =>
      (await checkPorts(loadSettings(ports, { cwd: '/' }), false)).map(({ verdict }) => verdict)
    assert.deepEqual(await find(), ['good', 'good', 'good', 'good'])
    consumer.ready = false
    assert.deepEqual(await find(), ['good', 'bad', 'good', 'good'])
    const other = createServer().listen(Number(ports.ARCHIVE_PORT), '127.0.0.1')
    assert.deepEqual((await find().finally(() => other.close()))[2], 'warning')
  } finally {
    await server.close()
  }
})

test('reports a refusal by the exchange with its fix, and the refusals of a running ingestion', async () => {
  await using exchange = disposable(await startSimulatedExchange({ messagesPerSecond: 10 }))
  exchange.faults.add({ kind: 'restError', status: 451, retryAfterSeconds: 90 })
  const env = { BINANCE_REST_URL: exchange.restUrl, BINANCE_WS_URL: exchange.wsUrl }
  const found = (await diagnose(env, 1)).get('exchange')
  assert.equal(found?.verdict, 'bad')
  assert.match(found?.text ?? '', /exchangeInfo: HTTP 451.*not before 90 s have passed/)
  assert.match(found?.fix ?? '', /run from a region that the exchange serves/)
  const handshakes = { status: 418, reason: 'HTTP 418', retryAt: '2026-01-01T00:00:00Z' }
  const refused = ofRefusals({ refusals: { rest: null, handshakes }, openGaps: [] })
  assert.deepEqual(columns(refused, 'what', 'verdict'), [['exchange WebSocket', 'warning']])
  const gap = { gapId: 'a', fromId: 1, toId: 2, cause: 'reconnect', isFailing: true }
  const openGaps = [
    { ...gap, problem: 'HTTP 401', fix: 'Set BINANCE_API_KEY.' },
    { ...gap, problem: 'absent at exchange', isFailing: false, fix: null },
  ]
  assert.deepEqual(
    columns(ofRefusals({ refusals: { rest: null, handshakes: null }, openGaps }), 'text', 'fix'),
    [['1 gap cannot be filled now: HTTP 401', 'Set BINANCE_API_KEY.']],
  )
})

test('requires Java and Maven only where it would start Kafka', async () => {
  const alone = await diagnose({ BINANCE_REST_URL: 'http://127.0.0.1:1' }, 1)
  assert.equal(alone.get('Kafka')?.verdict, 'none')
  assert.equal(alone.get('Java')?.verdict, 'good')
  const away = { BINANCE_REST_URL: 'http://127.0.0.1:1', KAFKA_BROKERS: '127.0.0.1:1' }
  const elsewhere = await diagnose(away, 1)
  assert.equal(elsewhere.get('Java, Maven')?.verdict, 'none')
})

function disposable<Server extends { close(): Promise<void> }>(server: Server): Server & AsyncDisposable {
  return Object.assign(server, { [Symbol.asyncDispose]: () => server.close() })
}
