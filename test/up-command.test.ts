import assert from 'node:assert/strict'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { ConsumerStatus } from '../src/foundation/telemetry/status.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { column } from './support/columns.ts'
import { startTapeline } from './support/processes.ts'
import { fetchStatus } from './support/services.ts'
import { until } from './support/wait-for.ts'

const START_TIMEOUT_MS = 180_000

test('one command runs the whole pipeline, other commands find it, and leftovers of a kill are cleaned up', {
  timeout: 240_000,
}, async () => {
  const cwd = mkdtempSync(join(tmpdir(), 'up-'))
  const consumerPort = await freePort()
  const env = {
    INGEST_PORT: String(await freePort()),
    CONSUMER_PORT: String(consumerPort),
    DASHBOARD_PORT: String(await freePort()),
  }
  const run = (...args: string[]) => startTapeline(args, { cwd, env })
  const rows = async () => {
    const { rows: byType } = await fetchStatus<ConsumerStatus>(`http://127.0.0.1:${consumerPort}`)
    return Object.values(byType)
      .flatMap(Object.values)
      .reduce((sum: number, one: number) => sum + one, 0)
  }
  await using first = run('up', '--simulate')
  await until('rows of the built-in exchange', async () => (await rows()) > 500, START_TIMEOUT_MS)
  // Until it has polled every part it answers 503.
  const snapshot = () => fetch(`http://127.0.0.1:${env.DASHBOARD_PORT}/snapshot`)
  await until('a snapshot', async () => (await snapshot()).ok)
  const dashboard = await snapshot()
  const { parts } = (await dashboard.json()) as { parts: ReadonlyArray<{ health: string }> }
  assert.deepEqual(column(parts, 'health'), ['well', 'well', 'well'])
  await using verify = run('verify', '--json')
  await verify.assertExit(0)
  assert.equal(JSON.parse(verify.output()).verdict, 'clean')
  await using deadLetters = run('dead-letters', 'list')
  await deadLetters.assertExit(0)
  first.signal('SIGKILL')
  await first.exit()

  await using second = run('up', '--simulate', '--for', '3s')
  await second.assertExit(0, START_TIMEOUT_MS)
  assert.match(second.output(), /kafka \(process \d+\), left over from a killed run/)
  assert.match(second.output(), /BTCUSDT/)
})

test('two that start at once have a Kafka each', { timeout: 240_000 }, async () => {
  const start = async () => {
    const env = {
      INGEST_PORT: String(await freePort()),
      CONSUMER_PORT: String(await freePort()),
      DASHBOARD_PORT: String(await freePort()),
    }
    return startTapeline(['up', '--simulate', '--for', '3s'], {
      cwd: mkdtempSync(join(tmpdir(), 'up-')),
      env,
    })
  }
  await using one = await start()
  await using other = await start()
  const brokers = []
  for (const up of [one, other]) {
    await up.assertExit(0, START_TIMEOUT_MS)
    brokers.push(/Kafka [\d.]+ on (\S+)/.exec(up.output())?.[1])
  }
  assert.ok(brokers[0] !== undefined && brokers[0] !== brokers[1], brokers.join())
})
