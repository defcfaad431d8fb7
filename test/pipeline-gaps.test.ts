import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { idsByStream } from './support/messages.ts'
import { createPipelineParts, type PipelineParts } from './support/pipeline-parts.ts'
import { startTapeline } from './support/processes.ts'
import {
  assertFramesCounted,
  type IngestionProcess,
  startConsumerProcess,
  untilAcknowledged,
  untilCaughtUp,
} from './support/services.ts'

let parts: PipelineParts

beforeEach(async () => {
  parts = await createPipelineParts({ messagesPerSecond: 600 })
})

afterEach(() => parts[Symbol.asyncDispose]())

async function healed(ingestion: IngestionProcess): Promise<void> {
  await ingestion.until(
    'every stream to have delivered and every gap to be filled',
    ({ streams, openGaps }) =>
      Object.values(streams).filter(({ events }) => events > 0).length === 9 && openGaps.length === 0,
  )
}

/** Rows, distinct ids and the span of ids of every sequence. */
async function sequences() {
  const { rows } = await parts.database.query<{ name: string; rows: number; ids: number; span: number }>(
    `SELECT symbol || ' ' || event_type AS name, count(*)::int AS rows, count(DISTINCT trade_id)::int AS ids,
       (max(trade_id) - min(trade_id) + 1)::int AS span FROM trades GROUP BY 1 ORDER BY 1`,
  )
  return rows
}

test('has every trade once after three kills of ingestion, with the ledger closed and bookTicker outages in it', async () => {
  await using consumer = await startConsumerProcess(parts.env)
  await consumer.ready()
  for (let kill = 0; kill < 3; kill++) {
    await using ingestion = await parts.ingest()
    await ingestion.ready()
    await healed(ingestion)
    await untilAcknowledged(ingestion, 500)
    await ingestion.command.kill()
  }
  await using ingestion = await parts.ingest()
  await ingestion.ready()
  await healed(ingestion)
  const status = await ingestion.status()
  assertFramesCounted(status)
  assert.ok(status.counters.backfilled > 0, 'something was missing')
  await ingestion.stop()
  const produced = await idsByStream(parts.topics.env.KAFKA_TRADES_TOPIC)
  const trades = [...produced.values()].reduce((sum, ids) => sum + new Set(ids).size, 0)
  await parts.untilTrades(trades)
  await untilCaughtUp(consumer)
  await consumer.stop()

  for (const { name, rows, ids, span } of await sequences()) {
    assert.deepEqual([rows, ids], [span, span], `${name}: no missing ids, each once`)
  }
  assert.equal(await parts.count("SELECT count(*) FROM gaps WHERE status = 'open'"), 0)
  const { rows: outages } = await parts.database.query(
    "SELECT symbol, count(*)::int AS outages FROM gaps WHERE event_type = 'bookTicker' AND to_time > from_time GROUP BY symbol ORDER BY symbol",
  )
  assert.deepEqual(
    outages,
    ['BNBUSDT', 'BTCUSDT', 'ETHUSDT'].map((symbol) => ({ symbol, outages: 3 })),
  )
  await startTapeline(['verify'], { env: { DATABASE_URL: parts.databaseUrl } }).assertExit(0)
})

test('an older instance stops when a newer one takes over its symbols', async () => {
  await using older = await parts.ingest()
  await older.ready()
  await using newer = await parts.ingest()
  await newer.ready()
  await older.command.assertExit(1)
  assert.match(older.command.output(), /Another ingestion \(.*\) has started over .*; this one is stopping/)
  await newer.stop()
})
