import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startIngestionHere } from './support/ingestion-here.ts'
import { createIngestionParts } from './support/ingestion-parts.ts'
import { assertNoneMissing, idsByStream } from './support/messages.ts'
import { assertFramesCounted } from './support/services.ts'
import { until } from './support/wait-for.ts'

const ROLLOVERS = Number(process.env['TAPELINE_ROLLOVERS'] ?? 3)

for (const perStream of ['1', '2']) {
  test(`replaces connections without gaps, duplicates or reordering, with ${perStream} per stream`, async (context) => {
    await using parts = await createIngestionParts({ messagesPerSecond: 900 })
    const { KAFKA_TRADES_TOPIC: trades, KAFKA_BOOK_TICKER_TOPIC: quotes } = parts.topics.env
    const env = { ...parts.env, CONNECTIONS_PER_STREAM: perStream }
    await using here = startIngestionHere(env, { connectionMaxAgeMs: 1500 })
    const { ingestion } = here
    const limitMs = 30_000 + ROLLOVERS * 15_000
    await until(`${ROLLOVERS} rollovers`, () => ingestion.status().rollovers >= ROLLOVERS, limitMs)
    await ingestion.stop(AbortSignal.timeout(8000))
    assertFramesCounted(ingestion.status())
    const { forwarded, duplicate } = ingestion.status().counters
    assert.ok(duplicate > 100, 'two connections delivered in parallel')
    assert.deepEqual(await parts.ledger(), [], 'nothing was ever missing')
    const streams = await idsByStream(trades, quotes)
    assert.equal(streams.size, 9)
    context.diagnostic(
      `${ingestion.status().rollovers} rollovers, ${forwarded} events, ${duplicate} duplicates`,
    )
    for (const [name, ids] of streams) {
      const inOrder = [...new Set(ids)].sort((one, other) => one - other)
      assert.deepEqual(ids, inOrder, `${name}: each once, in order`)
      if (!name.endsWith('bookTicker')) assertNoneMissing(ids, name)
    }
  })
}
