import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createConsumerParts } from './support/consumer-parts.ts'
import { produce } from './support/messages.ts'
import { tradeValue } from './support/records.ts'
import { startScriptedExchange, tradeFrame } from './support/scripted-exchange.ts'
import { startConsumerProcess, startIngestionProcess } from './support/services.ts'

const DEPTH = 100_000
/** Ways to nest, each deep enough to overflow the stack of a recursive parser or printer. */
function nested(depth: number): Record<string, string> {
  const around = (open: string, inner: string, close: string) =>
    open.repeat(depth) + inner + close.repeat(depth)
  return {
    'brackets that never close': '['.repeat(depth),
    'lists in lists': around('[', '', ']'),
    'objects in objects': around('{"a":', '1', '}'),
    'objects that never close': '{"stream":'.repeat(depth / 2),
  }
}

const DEEP = nested(DEPTH)
/** The deepest nesting in frames of 64 KiB. */
const FITTING = nested(10_000)

/** A trade with an additional field, as the exchange may add one. */
const trade = (id: number, added = '1') => tradeFrame(id, `,"added":${added}`)

test('rejects a deeply nested, long, forged or misencoded frame, and one of 2 MiB costs only its connection', async () => {
  await using parts = await createConsumerParts()
  await using exchange = await startScriptedExchange((socket, connection) => {
    if (connection === 1) {
      for (const frame of [...Object.values(FITTING), DEEP['lists in lists'] ?? '']) socket.send(frame)
      socket.send(`{"stream":"btcusdt@trade","data":${FITTING['objects in objects']}}`)
      socket.send(trade(1, FITTING['lists in lists']))
      socket.send(trade(2))
      socket.send(trade(2, '1,"source":"backfill"'))
      socket.send(trade(4, '1,"source":"backfill"').replace('"E":1723161255343,', ''))
      socket.send(trade(5, '1,"ingestion_timestamp_us":1723161255400123'))
      socket.send(Buffer.from(trade(6, '"\xff"'), 'latin1'), { binary: false })
      socket.send(' '.repeat(2 << 20))
    } else socket.send(trade(3))
  })
  await using ingestion = await startIngestionProcess({ ...parts.env, ...exchange.env })
  const { counters, rejectedByReason } = await ingestion.until(
    'the trades of both connections',
    (status) => status.counters.forwarded === 3,
  )
  assert.equal(counters.received, counters.forwarded + counters.rejected + counters.ignored)
  assert.deepEqual(rejectedByReason, {
    'not JSON': 2,
    'not UTF-8': 1,
    'not an object': 1,
    'e is not trade': 1,
    'frame is longer than 65536 bytes': 1,
    'source is a member that only Tapeline writes': 2,
    'ingestion_timestamp_us is a member that only Tapeline writes': 1,
  })
  assert.match(ingestion.command.output(), /Max payload size exceeded|1009|1006/)

  await using consumer = await startConsumerProcess(parts.env)
  await consumer.until('the three trades', (status) => status.counters.inserted >= 3)
  const { rows } = await parts.database.query<{ id: string; source: string }>(
    'SELECT trade_id AS id, source FROM trades ORDER BY 1',
  )
  const stored = rows.map(({ id, source }) => `${id} ${source}`)
  assert.deepEqual(stored, ['1 stream', '2 stream', '3 stream'])
  await consumer.stop()
  await ingestion.stop()
})

test('a message nested 100,000 deep is a dead letter, and the messages after it are stored', async () => {
  await using parts = await createConsumerParts()
  const deep = Object.values(DEEP).map((text) => Buffer.from(text))
  await produce(parts.topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [...deep, tradeValue({ t: 7 })])
  await produce(parts.topics.env.KAFKA_GAPS_TOPIC, 'a gap', deep)
  await using consumer = await startConsumerProcess(parts.env)
  await consumer.until(
    'the trade and the dead letters',
    ({ counters }) => counters.inserted >= 1 && counters.deadLettered >= 2 * deep.length,
  )
  const { rows } = await parts.database.query<{ reason: string; bytes: number }>(
    'SELECT reason, octet_length(payload)::int AS bytes FROM dead_letters ORDER BY topic, partition, kafka_offset',
  )
  assert.equal(rows.filter(({ reason }) => reason === 'value is not JSON').length, 4)
  assert.equal(new Set(rows.map(({ bytes }) => bytes)).size, 4, 'the bytes are kept whole')
  await consumer.stop()
})
