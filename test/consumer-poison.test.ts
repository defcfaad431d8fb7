import assert from 'node:assert/strict'
import { test } from 'node:test'
import { columns } from './support/columns.ts'
import { assertConserved, createConsumerParts } from './support/consumer-parts.ts'
import { drain } from './support/drain.ts'
import { produceMarket } from './support/market-messages.ts'
import { readTopic } from './support/messages.ts'
import { tradeValue } from './support/records.ts'

/** Each kind with its reason. Only a trade can be invalid in all these ways. */
const POISON: ReadonlyArray<readonly [string, Buffer | null]> = [
  ['value is not JSON', Buffer.from('{"e":"trade"')],
  ['s is not a symbol', tradeValue({ s: undefined })],
  ['p is not a decimal', tradeValue({ p: 'abc' })],
  ['q is not a decimal', tradeValue({ q: 'NaN' })],
  ['p is not a decimal', tradeValue({ p: '1'.repeat(30) })],
  ['t is not an id', Buffer.from(tradeValue().toString().replace('"t":1,', '"t":9007199254740993,'))],
  ['E is not a time in microseconds', tradeValue({ T: 1723161255342000 })],
  ['m is not a boolean', tradeValue({ m: 'true' })],
  ['s is not a symbol', tradeValue({ s: 'BTC\0USDT' })],
  [
    'value is not UTF-8',
    Buffer.concat([tradeValue().subarray(0, -1), Buffer.from(',"x":"\xff"}', 'latin1')]),
  ],
  ['value is empty', Buffer.alloc(0)],
  ['value is null', null],
  ['value is longer than 524288 bytes', tradeValue({ x: 'y'.repeat(600_000) })],
  ['value is not an object', Buffer.from('[[[[1]]]]')],
]

/** Every fifteenth message is a BTCUSDT trade; about one of those in every 1,000 messages is bad. */
const EVERY = 990
const MESSAGES = Number(process.env['TAPELINE_POISON_MESSAGES'] ?? 40_000)

test('D4 stores all good rows, and each bad message with its reason, at 1 poison message in 1,000', async (context) => {
  await using clean = await createConsumerParts('migrated')
  await using spoiled = await createConsumerParts('migrated')
  const sent: Array<readonly [string, Buffer | null]> = []
  await produceMarket(clean.topics, MESSAGES)
  await produceMarket(spoiled.topics, MESSAGES, (index) => {
    if (index % EVERY !== 0) return undefined
    const poison = POISON[sent.length % POISON.length]
    if (poison === undefined) return undefined
    sent.push(poison)
    return poison[1]
  })
  const without = await drain(clean.env, MESSAGES, 60_000)
  // The consumer also reads each dead letter's copy from its topic.
  const withPoison = await drain(spoiled.env, MESSAGES + sent.length, 60_000)
  context.diagnostic(
    `${MESSAGES} messages: ${without.messagesASecond}/s clean, ${withPoison.messagesASecond}/s with ${sent.length} poison messages ` +
      `(${Math.round((100 * withPoison.messagesASecond) / without.messagesASecond)} %)`,
  )

  const { counters } = withPoison.status
  assertConserved(withPoison.status)
  assert.deepEqual([counters.inserted, counters.deadLettered], [MESSAGES - sent.length, sent.length])
  const rows = '(SELECT count(*) FROM trades) + (SELECT count(*) FROM book_ticker)'
  assert.equal(await clean.count(rows), MESSAGES)
  assert.equal(await spoiled.count(rows), MESSAGES - sent.length)
  const { rows: letters } = await spoiled.database.query<{ reason: string; payload: Buffer | null }>(
    'SELECT reason, payload FROM dead_letters ORDER BY kafka_offset',
  )
  assert.deepEqual(columns(letters, 'reason', 'payload'), sent)
  const inTopic = await readTopic(spoiled.topics.env.KAFKA_DEAD_LETTERS_TOPIC)
  assert.deepEqual(
    inTopic
      .sort((one, other) => Number(one.headers['origin_offset']) - Number(other.headers['origin_offset']))
      .map(({ headers, value }) => [headers['reason'], value]),
    sent,
  )
})
