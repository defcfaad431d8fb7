import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startTapeline } from './support/processes.ts'

const WRONG = {
  SYMBOLS: '?',
  KAFKA_BROKERS: '::',
  DATABASE_URL: 'mysql://user:hunter2@host/db',
  BATCH_SIZE: '0',
  INGEST_PORT: 'http',
}

test('says all that is wrong with the settings in one error, exit code 2, before anything is opened', async () => {
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

test('refuses a command or an option that it does not know, exit code 2', async () => {
  for (const args of [['ingets'], ['up', '--simulated'], ['topics', 'map', '--partitions', 'many']]) {
    await using wrong = startTapeline(args)
    await wrong.assertExit(2)
    assert.doesNotMatch(wrong.output(), /at .*\.ts:/)
  }
})

test('says which port is taken and what to do about it', async () => {
  await using first = startTapeline(['ingest'], {
    env: { KAFKA_BROKERS: '127.0.0.1:1', INGEST_PORT: '18080' },
  })
  await first.waitForLine(/Ingestion started/)
  await using second = startTapeline(['ingest'], {
    env: { KAFKA_BROKERS: '127.0.0.1:1', INGEST_PORT: '18080' },
  })
  await second.assertExit(1)
  assert.match(second.output(), /Port 18080 on 127\.0\.0\.1 is in use/)
  assert.match(second.output(), /set INGEST_PORT to another port/)
})
