import assert from 'node:assert/strict'
import { test } from 'node:test'
import { startIngestionHere } from './support/ingestion-here.ts'
import { createIngestionParts } from './support/ingestion-parts.ts'
import { readTopic } from './support/messages.ts'
import { assertFramesCounted } from './support/services.ts'
import { until } from './support/wait-for.ts'

/** The ids of every stream in a topic, in the order of their offsets. */
async function idsByStream(topics: readonly string[]): Promise<Map<string, number[]>> {
  const ids = new Map<string, number[]>()
  for (const topic of topics) {
    for (const { value } of await readTopic(topic)) {
      const { e = 'bookTicker', s, t, a, u } = JSON.parse(String(value))
      const id = e === 'trade' ? t : e === 'aggTrade' ? a : u
      const stream = ids.get(`${s} ${e}`) ?? []
      stream.push(id)
      ids.set(`${s} ${e}`, stream)
    }
  }
  return ids
}

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
    const streams = await idsByStream([trades, quotes])
    assert.equal(streams.size, 9)
    context.diagnostic(
      `${ingestion.status().rollovers} rollovers, ${forwarded} events, ${duplicate} duplicates`,
    )
    for (const [name, ids] of streams) {
      for (const [i, id] of ids.entries()) {
        const before = ids[i - 1]
        if (before === undefined) continue
        if (name.endsWith('bookTicker')) assert.ok(id > before, `${name}: ${id} after ${before}`)
        else assert.equal(id, before + 1, `${name}: ${id} after ${before}`)
      }
    }
  })
}
