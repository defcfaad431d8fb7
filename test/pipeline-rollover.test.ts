import assert from 'node:assert/strict'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { pino } from 'pino'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { ingestionConfig } from '../src/ingestion/config.ts'
import { ports } from '../src/ingestion/ports.ts'
import { Ingestion } from '../src/ingestion/service.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestTopics } from './support/kafka.ts'
import { readLedger, readTopic } from './support/messages.ts'
import { waitFor } from './support/wait-for.ts'

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
    const topics = await createTestTopics({ prefix: 'rollover' })
    const exchange = await startSimulatedExchange({ messagesPerSecond: 900 })
    const { KAFKA_TRADES_TOPIC: trades, KAFKA_BOOK_TICKER_TOPIC: quotes, KAFKA_GAPS_TOPIC: gaps } = topics.env
    const settings = loadSettings(
      {
        ...topics.env,
        BINANCE_WS_URL: exchange.wsUrl,
        BINANCE_REST_URL: exchange.restUrl,
        CONNECTIONS_PER_STREAM: perStream,
      },
      { cwd: tmpdir() },
    )
    const config = { ...ingestionConfig(settings), connectionMaxAgeMs: 1500 }
    const ingestion = new Ingestion(config, ports(config, systemClock()), pino({ level: 'silent' }))
    try {
      ingestion.start()
      const startedMs = performance.now()
      await waitFor(() => ingestion.status().rollovers >= ROLLOVERS, {
        timeoutMs: 30_000 + ROLLOVERS * 15_000,
        what: `${ROLLOVERS} rollovers`,
      })
      const seconds = (performance.now() - startedMs) / 1000
      await ingestion.stop(AbortSignal.timeout(8000))
      const { received, forwarded, duplicate, control, ignored, rejected, held } = ingestion.status().counters
      assert.equal(received, forwarded + duplicate + control + ignored + rejected + held)
      assert.ok(duplicate > 100, 'two connections delivered in parallel')
      assert.deepEqual(await readLedger(gaps), [], 'nothing was ever missing')
      const streams = await idsByStream([trades, quotes])
      assert.equal(streams.size, 9)
      context.diagnostic(
        `${ingestion.status().rollovers} rollovers, ${forwarded} events, ${duplicate} duplicates, ${Math.round(received / seconds)} events/s received`,
      )
      for (const [name, ids] of streams) {
        for (const [i, id] of ids.entries()) {
          const before = ids[i - 1]
          if (before === undefined) continue
          if (name.endsWith('bookTicker')) assert.ok(id > before, `${name}: ${id} after ${before}`)
          else assert.equal(id, before + 1, `${name}: ${id} after ${before}`)
        }
      }
    } finally {
      await ingestion.stop(AbortSignal.timeout(100)).catch(() => {})
      await exchange.close()
      await topics.delete()
    }
  })
}
