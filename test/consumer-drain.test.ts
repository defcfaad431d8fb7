import assert from 'node:assert/strict'
import { test } from 'node:test'
import { assertConserved, createConsumerParts } from './support/consumer-parts.ts'
import { drain } from './support/drain.ts'
import { produceMarket } from './support/market-messages.ts'

/** The measurement in docs/consumer.md uses 2,000,000. */
const MESSAGES = Number(process.env['TAPELINE_DRAIN_MESSAGES'] ?? 150_000)
const LIMIT_MIB = 250

test('K2 drains a backlog in constant memory', { timeout: 540_000 }, async (context) => {
  await using parts = await createConsumerParts('migrated')
  await produceMarket(parts.topics, MESSAGES)
  const drained = await drain(parts.env, MESSAGES, 400_000)
  context.diagnostic(
    `${MESSAGES} messages in ${drained.seconds.toFixed(1)} s: ${drained.messagesASecond}/s, peak ${drained.peakMiB} MiB; ` +
      `at each tenth ${drained.residentMiB.join(' ')} MiB`,
  )
  assertConserved(drained.status)
  assert.equal(drained.status.counters.inserted, MESSAGES)
  for (const table of ['trades', 'book_ticker']) {
    // Chunks with their indexes, for docs/sizing.md.
    const bytes = await parts.count(
      `SELECT hypertable_size('${table}') / greatest(count(*), 1) FROM ${table}`,
    )
    context.diagnostic(`${table}: ${bytes} bytes per row`)
  }
  const rows = '(SELECT count(*) FROM trades) + (SELECT count(*) FROM book_ticker)'
  assert.equal(await parts.count(rows), MESSAGES)
  assert.ok(drained.peakMiB < LIMIT_MIB, `${drained.peakMiB} MiB were resident`)
})
