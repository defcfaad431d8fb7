import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readSequenceStarts } from '../src/foundation/store/meta.ts'
import { verify } from '../src/tools/verify/verify.ts'
import { AUDIT_OPTIONS, failuresOf, gapSql } from './support/audited-market.ts'
import { createConsumerParts, trades } from './support/consumer-parts.ts'
import { produce } from './support/messages.ts'
import { tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'

/** Trades as backfill sends them: REST returns no event time. */
const backfilled = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) =>
    tradeValue({ t: from + i, E: undefined, M: undefined, source: 'backfill' }),
  )

test('P11 after a first start at the latest offsets, backfilled trades from before the start leave no gap', async () => {
  await using parts = await createConsumerParts('migrated')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  // A gap of 10..19 is open; the stream has reached 160 before the consumer starts.
  await produce(topic, 'BTCUSDT', [...trades(5, 10), ...trades(20, 160)])
  const env = { ...parts.env, AUTO_OFFSET_RESET: 'latest' }
  await using first = await startConsumerProcess(env)
  await first.ready()
  await produce(topic, 'BTCUSDT', backfilled(10, 15))
  await produce(topic, 'BTCUSDT', trades(160, 165))
  await parts.untilTrades(10)
  await first.stop()
  await parts.database.query(gapSql('filled', 10, 19))
  // The first event after a later start does not begin a recording.
  await produce(topic, 'BTCUSDT', [...backfilled(15, 20), ...trades(165, 170), ...trades(171, 175)])
  await using second = await startConsumerProcess(env)
  await parts.untilTrades(24)
  await second.stop()
  const audit = await verify(parts.database, AUDIT_OPTIONS)
  const [first160] = trades(160, 161).map((value) => JSON.parse(String(value)))
  assert.deepEqual(await readSequenceStarts(parts.database), [
    { symbol: 'BTCUSDT', eventType: 'trade', epoch: 0, id: 160, timeMs: first160.T },
  ])
  // An id that is lost later is missing.
  assert.deepEqual(failuresOf(audit), ['continuity: missing, BTCUSDT trade, 1: 170'])
  assert.equal(audit.sequences[0]?.beforeStart, 10)
})
