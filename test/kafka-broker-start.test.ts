import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { parseJavaVersion } from '../src/sandbox/kafka-broker/java.ts'
import {
  type KafkaBroker,
  lastMeaningfulLine,
  startKafkaBroker,
} from '../src/sandbox/kafka-broker/kafka-broker.ts'
import {
  ensureKafkaDistribution,
  KAFKA_VERSION,
  mavenFailure,
} from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { CACHE_DIRECTORY } from './support/bounded-run.ts'
import { ended } from './support/ended.ts'
import { withAdmin } from './support/kafka-clients.ts'
import { within } from './support/wait-for.ts'

let folder: string
let distributionDir: string
const brokers: KafkaBroker[] = []

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kafka-broker-'))
  distributionDir = await ensureKafkaDistribution({ cacheDir: CACHE_DIRECTORY })
})

after(async () => {
  for (const broker of brokers) {
    broker.kill()
    await broker.exited
  }
  await rm(folder, { recursive: true, force: true })
})

async function start(port: number): Promise<KafkaBroker> {
  const dataDir = join(folder, 'a broker, of a test')
  const broker = await within(90_000, 'a broker', () => startKafkaBroker({ distributionDir, dataDir, port }))
  brokers.push(broker)
  return broker
}

test('a topic survives a kill and a restart of the broker, which then shuts down cleanly', async () => {
  const first = await start(0)
  await withAdmin([first.brokers], (admin) =>
    admin.createTopics({ topics: ['kept'], partitions: 3, replicas: 1 }),
  )
  process.kill(first.pid, 'SIGKILL')
  await within(10_000, 'the end of the broker', () => first.exited)

  const second = await start(first.port)
  assert.ok((await withAdmin([second.brokers], (admin) => admin.listTopics())).includes('kept'))
  const message = new RegExp(`in use by a Kafka broker, process ${second.pid}`)
  await assert.rejects(start(0), { name: 'TapelineError', message })
  const exit = await within(15_000, 'the stop', () => second.stop())
  assert.notEqual(exit.signal, 'SIGKILL', 'the broker had to be killed')
})

test('a broker starts with any first character of its cluster id', async () => {
  const dataDir = join(folder, 'hyphen')
  const clusterId = '-bcdefghijklmnopqrstuv'
  const broker = await within(90_000, 'a broker', () =>
    startKafkaBroker({ distributionDir, dataDir, port: 0, clusterId }),
  )
  await broker.stop()
})

test('reports a port in use with the fix, before it starts anything', async () => {
  await using other = ended(createServer(), 'close')
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  const address = other.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  await assert.rejects(startKafkaBroker({ distributionDir, dataDir: join(folder, 'taken'), port }), {
    code: 'ENVIRONMENT',
    message: new RegExp(`port ${port} .* taken`),
    fix: /KAFKA_BROKERS/,
  })
})

test('of two brokers that start on one port at once, one has it, and the other names it', async () => {
  const first = await start(0)
  await first.stop()
  const starts = ['one', 'other'].map((name) =>
    startKafkaBroker({ distributionDir, dataDir: join(folder, name), port: first.port }),
  )
  const outcomes = await within(90_000, 'both', () => Promise.allSettled(starts))
  for (const one of outcomes) if (one.status === 'fulfilled') brokers.push(one.value)
  const refused = outcomes.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
  assert.equal(refused.length, 1)
  assert.match(String(refused[0]), new RegExp(`port ${first.port} .* taken`))
})

test('an aborted start leaves no broker process', async () => {
  const stop = new AbortController()
  let pid = 0
  const starting = startKafkaBroker({
    distributionDir,
    dataDir: join(folder, 'aborted'),
    port: 0,
    signal: stop.signal,
    onSpawned(spawned) {
      pid = spawned.pid
      stop.abort(new Error('no longer wanted'))
    },
  })
  await within(60_000, 'the end of the start', () => assert.rejects(starting, /no longer wanted/))
  assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' })
})

test('a download interrupted at any point is not accepted as complete', async () => {
  const cacheDir = join(folder, 'cache')
  const stop = new AbortController()
  let wholeTooEarly = false
  const download = ensureKafkaDistribution({
    cacheDir,
    signal: stop.signal,
    onProgress() {
      // The state that a SIGKILL would leave at this moment.
      wholeTooEarly ||= readdirSync(cacheDir).includes(`kafka-${KAFKA_VERSION}`)
      stop.abort()
    },
  })
  await within(60_000, 'the end of the download', () => assert.rejects(download))
  assert.equal(wholeTooEarly, false)
  assert.deepEqual(readdirSync(cacheDir), [], 'an aborted download must leave nothing')
})

test('extracts the cause of a failure from the output of Maven, Java and Kafka', () => {
  const maven = [
    '[INFO] Scanning for projects...',
    '[ERROR] Failed to execute goal: Could not transfer artifact -> [Help 1]',
    '[ERROR] To see the full stack trace of the errors, re-run Maven with the -e switch.',
  ]
  assert.equal(mavenFailure(maven), 'Failed to execute goal: Could not transfer artifact')
  assert.equal(parseJavaVersion('openjdk version "17.0.15" 2025-04-15'), 17)
  assert.equal(parseJavaVersion('java version "1.8.0_402"'), 8)
  assert.equal(
    lastMeaningfulLine('WARN x\njava.io.IOException: disk full\n\tat a.B(C.java:1)\n'),
    'java.io.IOException: disk full',
  )
})
