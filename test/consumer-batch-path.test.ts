import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { RecordSender } from '../src/foundation/kafka/record-sender.ts'
import { calledFiles, listedFiles } from './support/called-files.ts'
import { createConsumerParts } from './support/consumer-parts.ts'
import { brokers } from './support/kafka.ts'
import { markValue, produce } from './support/messages.ts'
import { tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'

/** More than the consumer calls any function for other reasons. */
const BATCHES = 500
const MOST_FILES = 26

test('docs/architecture.md lists the files that every batch passes from fetch to commit, no more than planned', async (context) => {
  await using stack = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-calls-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  const parts = stack.use(await createConsumerParts())
  const { env } = parts.topics
  await produce(env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('binance', env)])
  const consumer = stack.use(
    await startConsumerProcess({
      ...parts.env,
      // Each batch has one message, and each request gets one at most.
      BATCH_SIZE: '1',
      KAFKA_FETCH_MAX_WAIT_MS: '5',
      NODE_V8_COVERAGE: folder,
    }),
  )
  await consumer.ready()
  const producer = new RecordSender({ brokers: brokers(), tls: null, sasl: null }, 'tapeline-test', 'lz4')
  stack.defer(() => producer.close())
  for (let t = 0; t < 2 * BATCHES; t++) {
    const value = tradeValue({ t })
    const key = Buffer.from('BTCUSDT')
    await producer.send([
      {
        topic: env.KAFKA_TRADES_TOPIC,
        partition: 0,
        key,
        value,
        headers: new Map(),
        timestampMs: Date.now(),
      },
    ])
  }
  await parts.untilTrades(2 * BATCHES)
  const status = await consumer.status()
  await consumer.stop()
  assert.ok(status.flushes >= BATCHES, `${status.flushes} batches`)
  const called = calledFiles(folder, BATCHES)
  for (const [file, functions] of called)
    context.diagnostic(`${file}: ${[...functions].map(([name, calls]) => `${name} ${calls}`).join(', ')}`)
  assert.deepEqual(listedFiles('Batch path').toSorted(), [...called.keys()].toSorted())
  assert.ok(called.size <= MOST_FILES, `${called.size} files`)
})
