import assert from 'node:assert/strict'
import { test } from 'node:test'
import { describeError, TapelineError } from '../src/foundation/runtime/errors.ts'
import { loadSettings, withOrigin } from '../src/foundation/settings/load.ts'
import { parseLogLine } from '../src/sandbox/processes/log-follower.ts'
import { startTapeline } from './support/processes.ts'

const WRONG = {
  SYMBOLS: '?',
  KAFKA_BROKERS: '::',
  DATABASE_URL: 'mysql://user:hunter2@host/db',
  BATCH_SIZE: '0',
  INGEST_PORT: 'http',
}

test('reports all invalid settings in one error with exit code 2, before it opens anything', async () => {
  for (const command of [['ingest'], ['consume'], ['up'], ['migrate'], ['topics', 'init'], ['verify']]) {
    await using wrong = startTapeline(command, { env: WRONG })
    await wrong.assertExit(2)
    for (const name of Object.keys(WRONG))
      assert.match(wrong.output(), new RegExp(`${name}=.*: expected `), command.join(' '))
    assert.doesNotMatch(wrong.output(), /hunter2|at .*\.ts:/)
  }
})

test('prints the schema and the partitions without a server', async () => {
  await using migrate = startTapeline(['migrate', '--print'])
  await migrate.assertExit(0)
  assert.match(migrate.output(), /CREATE TABLE trades/)
  await using map = startTapeline(['topics', 'map', 'BTCUSDT', 'BNBUSDT', '--partitions', '3'])
  await map.assertExit(0)
  assert.equal(map.output(), 'partition 0: BNBUSDT\npartition 1: (empty)\npartition 2: BTCUSDT\n')
})

test('refuses an unknown command or option with exit code 2', async () => {
  for (const args of [['ingets'], ['up', '--simulated'], ['topics', 'map', '--partitions', 'many']]) {
    await using wrong = startTapeline(args)
    await wrong.assertExit(2)
    assert.doesNotMatch(wrong.output(), /at .*\.ts:/)
  }
})

test('names a port in use and the fix', async () => {
  const env = { KAFKA_BROKERS: '127.0.0.1:1', INGEST_PORT: '18080' }
  await using first = startTapeline(['ingest'], { env })
  await first.waitForLine(/Ingestion started/)
  await using second = startTapeline(['ingest'], { env })
  await second.assertExit(1)
  assert.match(second.output(), /Port 18080 on 127\.0\.0\.1 is in use by another process/)
  assert.match(second.output(), /set INGEST_PORT to a free port/)
})

test('explains in one line why the broker is unusable, down to the refused connection, and suggests a working command', async () => {
  await using topics = startTapeline(['topics', 'init'], { env: { KAFKA_BROKERS: '127.0.0.1:1' } })
  await topics.assertExit(1)
  const [line = ''] = topics.output().split('\n')
  assert.match(line, /on 127\.0\.0\.1:1 \(KAFKA_BROKERS\): .*ECONNREFUSED/)
  assert.doesNotMatch(line, /\.:|::/)
  await using help = startTapeline(['up', '--help'])
  await help.assertExit(0)
  assert.doesNotMatch(help.output(), /(?<!bin\/)tapeline up/)
})

test('does not blame an unset setting for its default value', () => {
  const origin = (env: Record<string, string>) =>
    withOrigin(loadSettings(env, { cwd: '/nowhere' }), 'KAFKA_BROKERS', 'localhost:9092')
  assert.equal(origin({}), 'localhost:9092 (the default of KAFKA_BROKERS)')
  assert.equal(origin({ KAFKA_BROKERS: 'localhost:9092' }), 'localhost:9092 (KAFKA_BROKERS)')
})

test('prints each cause of an error once, without a full stop before a colon, and terminates on a cycle', () => {
  const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
  const failed = new Error('Connection failed.', { cause: refused })
  const chain = new AggregateError([new AggregateError([failed, failed], 'No broker.')], 'Listing failed.')
  assert.equal(describeError(chain), 'Listing failed: No broker: Connection failed: connect ECONNREFUSED')
  const repeated = new Error(`Lost: ${refused.message}`, { cause: refused })
  assert.equal(describeError(repeated), `Lost: ${refused.message}`)
  const forPerson = new TapelineError('KAFKA', 'Written for a person.', { cause: refused })
  assert.equal(describeError(forPerson), 'Written for a person.')
  assert.equal(describeError(Object.assign(new Error(''), { code: 'EPIPE' })), 'EPIPE')
  const circular = new Error('round')
  circular.cause = new Error('and round', { cause: circular })
  assert.equal(describeError(circular), 'round: and round')
  const err = { message: 'Connection failed.: connect ECONNREFUSED' }
  const logged = { level: 40, msg: `Not yet: ${describeError(failed)}`, err }
  assert.equal(parseLogLine(JSON.stringify(logged))?.text, 'Not yet: Connection failed: connect ECONNREFUSED')
})
