import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { insertDeadLetters } from '../src/foundation/dead-letters/dead-letter.ts'
import { migrate } from '../src/foundation/store/migrate.ts'
import { type ConsumerParts, createConsumerParts } from './support/consumer-parts.ts'
import { produce } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { tradeValue } from './support/records.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

let parts: ConsumerParts

beforeEach(async () => {
  parts = await createConsumerParts()
})

afterEach(() => parts[Symbol.asyncDispose]())

const count = (sql: string) => parts.count(sql)

async function run(code: number, ...args: string[]): Promise<string> {
  await using command = startTapeline(['dead-letters', ...args], { env: parts.env })
  await command.assertExit(code, 30_000)
  return command.output()
}

test('lists a poison message with its details, fails to retry it, and a redelivery changes nothing', async () => {
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  await produce(topic, 'BTCUSDT', [
    tradeValue({ t: 1 }),
    tradeValue({ t: 2, p: 'abc' }),
    Buffer.from([0xff, 0x1b, 0x5b]),
    tradeValue({ t: 4 }),
  ])
  const readAll = async () => {
    await using consumer = await startConsumerProcess(parts.env)
    await until('four messages to be read', async () => (await parts.storedOffset(topic)) === 4)
    await consumer.stop()
  }
  await readAll()
  const list = await run(0, 'list')
  assert.match(list, new RegExp(`${topic}/2/1 .* consumer: p is not a decimal\\n    \\{"e":"trade"`))
  assert.match(list, new RegExp(`${topic}/2/2 .* consumer: value is not UTF-8\\n    hex ff1b5b`))
  assert.match(list, /1 {2}p is not a decimal\n1 {2}value is not UTF-8\n2 dead letters\.\n$/)
  const listed: unknown = JSON.parse(
    await run(0, 'list', '--json', '--full', '--symbol', 'btcusdt', '--reason', 'decimal'),
  )
  const [one] = Reflect.get(Object(listed), 'dead_letters')
  assert.deepEqual(
    [one.offset, one.origin, one.attempts, one.resolved_at, one.payload, one.payload_bytes_left_out],
    [1, 'consumer', 1, null, String(tradeValue({ t: 2, p: 'abc' })), 0],
  )

  assert.match(
    await run(1, 'retry'),
    /fails again: p is not a decimal[\s\S]*0 stored, 0 stored already, 2 failed again/,
  )
  // As after a restored backup: everything is read a second time.
  await parts.database.query('UPDATE consumer_offsets SET next_offset = 0')
  await readAll()
  const { rows } = await parts.database.query<{ at: number; attempts: number }>(
    'SELECT kafka_offset::int AS at, attempts FROM dead_letters ORDER BY 1',
  )
  assert.deepEqual(
    rows.map(({ at, attempts }) => `${at}: ${attempts}`),
    ['1: 2', '2: 2'],
  )
  assert.equal(await count('SELECT count(*) FROM trades'), 2)
})

test('of several concurrent retries, one stores a message that was refused in error, and later ones none', async () => {
  await migrate(parts.database)
  const letters = Array.from({ length: 60 }, (_, i) => ({
    topic: parts.topics.env.KAFKA_TRADES_TOPIC,
    topicId: '0f0e0d0c-0b0a-0908-0706-050403020100',
    partition: 2,
    offset: i,
    origin: 'consumer' as const,
    reason: 'refused by an earlier program',
    key: Buffer.from('BTCUSDT'),
    payload: tradeValue({ t: i }),
    headers: [['schema', 'trade/1']] as const,
    failedAtMs: Date.now(),
  }))
  await insertDeadLetters(parts.database, letters)
  const one = `${parts.topics.env.KAFKA_TRADES_TOPIC}/2/7`
  assert.match(await run(0, 'retry', one, '--dry-run'), /\/2\/7 {2}would be stored\n1 stored.*dry run/)
  assert.match(await run(0, 'retry', one), /\/2\/7 {2}stored, resolved\n1 stored,/)
  const outputs = await Promise.all([run(0, 'retry'), run(0, 'retry')])
  const stored = outputs.map((output) => output.match(/stored, resolved/g)?.length ?? 0)
  assert.equal(
    stored.reduce((sum, n) => sum + n, 0),
    59,
  )
  assert.equal(await count('SELECT count(*) FROM trades'), 60)
  assert.match(await run(0, 'retry'), /^No unresolved dead letter matches\.\n$/)
  assert.match(await run(0, 'list'), /^No dead letters\.\n$/)
  assert.match(
    await run(0, 'list', '--all', '--limit', '2'),
    /60 {2}refused .* \(60 resolved\)\n60 dead letters, of which the newest 2/,
  )
})

test('a payload cannot send escape sequences to the terminal', async () => {
  await migrate(parts.database)
  await insertDeadLetters(parts.database, [
    {
      topic: 't',
      topicId: '0f0e0d0c-0b0a-0908-0706-050403020100',
      partition: 0,
      offset: 1,
      origin: 'ingestion',
      reason: 'not JSON\u001b[2J',
      key: null,
      payload: Buffer.from(`\u001b]0;owned\u0007\u202e${'ä'.repeat(400)}`),
      failedAtMs: Date.now(),
    },
  ])
  const output = await run(0, 'list')
  assert.match(output, /\\u001b\]0;owned\\u0007\\u202eä+ … \d+ bytes more \(--full\)/)
  const steering = [...output].filter((character) => /[\p{Cc}\p{Cf}]/u.test(character) && character !== '\n')
  assert.deepEqual(steering, [])
})

test('reports an unmigrated database and an invalid filter with the fix', async () => {
  assert.match(
    await run(1, 'list'),
    /dead letters cannot be listed: .*"dead_letters" does not exist\n {2}Run: bin\/tapeline migrate/,
  )
  assert.match(await run(2, 'list', '--since', 'yesterday'), /Expected a UTC time like 2026-01-31/)
  assert.match(await run(2, 'retry', 'binance.trades'), /Expected TOPIC\/PARTITION\/OFFSET/)
})

test('stores a row refused by a wrong database rule once the rule is gone, with its epoch', async () => {
  await migrate(parts.database)
  await parts.database.query('ALTER TABLE trades ADD CONSTRAINT wrong_rule CHECK (price < 50000)')
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  const dear = tradeValue({ t: 2, p: '61837.63' })
  await produce(topic, 'BTCUSDT', [tradeValue({ t: 1, p: '5' }), dear, tradeValue({ t: 3, p: '6' })], {
    headers: { schema: 'trade/1', epoch: '3' },
  })
  await using consumer = await startConsumerProcess(parts.env)
  await parts.untilTrades(2)
  await parts.untilRows('SELECT count(*) FROM dead_letters', 1)
  assert.match(await run(0, 'list'), /\/2\/1 .* consumer: refused by the database: 23514 .*wrong_rule/)
  assert.match(await run(1, 'retry'), /fails again: refused by the database: 23514 .*wrong_rule/)
  await parts.database.query('ALTER TABLE trades DROP CONSTRAINT wrong_rule')
  assert.match(await run(0, 'retry'), /\/2\/1 {2}stored, resolved\n1 stored,/)
  const { rows } = await parts.database.query(
    'SELECT trade_id::int AS id, epoch FROM trades ORDER BY trade_id',
  )
  assert.deepEqual(
    rows,
    [1, 2, 3].map((id) => ({ id, epoch: 3 })),
  )
  await consumer.stop()
})
