import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { payloads } from '../bench/alone/frames.ts'
import { calledFiles, listedFiles } from './support/called-files.ts'
import { createTestTopics } from './support/kafka.ts'
import { startScriptedExchange } from './support/scripted-exchange.ts'
import { startIngestionProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

const SYMBOLS = ['BTCUSDT']
/** More than ingestion calls any function for other reasons. */
const EVENTS_OF_TYPE = 10_000
const TYPES = ['trade', 'aggTrade', 'bookTicker']
const MOST_FILES = 20

/** The first frames of each event type, in the order of the market. */
function framesOfAllTypes(): Buffer[] {
  const counts = new Map(TYPES.map((type) => [`@${type}"`, 0]))
  const all = payloads(SYMBOLS, 15 * EVENTS_OF_TYPE).filter((frame) => {
    const type = frame.toString('latin1', frame.indexOf('@'), frame.indexOf('",') + 1)
    const count = counts.get(type) ?? 0
    counts.set(type, count + 1)
    return count < EVENTS_OF_TYPE
  })
  assert.equal(all.length, TYPES.length * EVENTS_OF_TYPE)
  return all
}

test('docs/architecture.md lists the files that every event passes from the socket to Kafka, at most 20', async (context) => {
  await using stack = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-calls-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  const topics = await createTestTopics({ prefix: 'path' })
  stack.defer(() => topics.delete())
  const frames = framesOfAllTypes()
  const exchange = await startScriptedExchange((socket) => {
    for (const frame of frames) socket.send(frame, { binary: false })
  })
  stack.use(exchange)
  const env = {
    ...topics.env,
    ...exchange.env,
    TIME_UNIT: 'microsecond',
    // To learn the leader's epoch, ingestion reads the last batch of each partition again.
    KAFKA_BATCH_SIZE: '100',
    NODE_V8_COVERAGE: folder,
  }
  const ingestion = stack.use(await startIngestionProcess(env))
  await until(
    'Kafka to acknowledge every event',
    async () => (await ingestion.status()).counters.acknowledged >= frames.length,
  )
  await ingestion.stop()
  const called = calledFiles(folder, EVENTS_OF_TYPE)
  for (const [file, functions] of called)
    context.diagnostic(`${file}: ${[...functions].map(([name, calls]) => `${name} ${calls}`).join(', ')}`)
  assert.deepEqual(listedFiles('Event path').toSorted(), [...called.keys()].toSorted())
  assert.ok(called.size <= MOST_FILES, `${called.size} files`)
})
