import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { RecordSender } from '../src/foundation/kafka/record-sender.ts'
import { calledFiles, listedFiles } from './support/called-files.ts'
import { createConsumerParts } from './support/consumer-parts.ts'
import { brokers } from './support/kafka.ts'
import { markValue, produce } from './support/messages.ts'
import { tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'

/** More than the consumer calls any function for other reasons. */
const BATCHES = 500
const FLUSH_INTERVAL_MS = 10
const MOST_FILES = 20

test('docs/architecture.md lists the files that every batch passes from fetch to commit, no more than planned', {
  timeout: 300_000,
}, async (context) => {
  await using stack = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-calls-'))
  stack.defer(() => rmSync(folder, { recursive: true, force: true }))
  // With one partition, what the consumer does for each partition now and then is least.
  const parts = stack.use(await createConsumerParts('empty', undefined, 1))
  const { env } = parts.topics
  await produce(env.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('binance', env)])
  const consumer = stack.use(
    await startConsumerProcess({
      ...parts.env,
      // A batch has the messages of at least one request, and most have one.
      FLUSH_INTERVAL_MS: String(FLUSH_INTERVAL_MS),
      NODE_V8_COVERAGE: folder,
    }),
  )
  await consumer.ready()
  const producer = new RecordSender({ brokers: brokers(), tls: null, sasl: null }, 'tapeline-test', 'lz4')
  stack.defer(() => producer.close())
  let t = 0
  do {
    for (const end = t + BATCHES / 5; t < end; t++) {
      const message = { key: Buffer.from('BTCUSDT'), value: tradeValue({ t }), headers: new Map() }
      await producer.send([
        { topic: env.KAFKA_TRADES_TOPIC, partition: 0, ...message, timestampMs: Date.now() },
      ])
      // So that most messages have a batch to themselves, and the test ends before the consumer has
      // often done what it does now and then.
      await setTimeout(FLUSH_INTERVAL_MS)
    }
  } while ((await consumer.status()).flushes < BATCHES)
  await parts.untilTrades(t)
  await consumer.stop()
  const called = calledFiles(folder, BATCHES)
  for (const [file, functions] of called)
    context.diagnostic(`${file}: ${[...functions].map(([name, calls]) => `${name} ${calls}`).join(', ')}`)
  assert.deepEqual(listedFiles('Batch path').toSorted(), [...called.keys()].toSorted())
  assert.ok(called.size <= MOST_FILES, `${called.size} files`)
})
