import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { RECORDING_KEY } from '../src/foundation/market/recording.ts'
import { createIngestionParts, type IngestionParts } from './support/ingestion-parts.ts'
import { setTopicConfig } from './support/kafka.ts'
import { readTopic } from './support/messages.ts'
import { until } from './support/wait-for.ts'

let parts: IngestionParts

beforeEach(async () => {
  parts = await createIngestionParts({ messagesPerSecond: 600, historyMinutes: 5 })
})

afterEach(() => parts[Symbol.asyncDispose]())

test('K8 an oversized batch is sent in halves; an event that is too large alone becomes a dead letter', async () => {
  await using ingestion = await parts.ingest({ KAFKA_COMPRESSION: 'none' })
  await ingestion.ready()
  await setTopicConfig(parts.topics.env.KAFKA_BOOK_TICKER_TOPIC, { 'max.message.bytes': '420' })
  await until(
    'quotes in small batches',
    async () => (await readTopic(parts.topics.env.KAFKA_BOOK_TICKER_TOPIC)).length > 3000,
  )
  await setTopicConfig(parts.topics.env.KAFKA_BOOK_TICKER_TOPIC, { 'max.message.bytes': '100' })
  await until('dead letters', async () =>
    (await readTopic(parts.topics.env.KAFKA_DEAD_LETTERS_TOPIC)).some(({ value }) =>
      String(value).includes('"u":'),
    ),
  )
  await setTopicConfig(parts.topics.env.KAFKA_BOOK_TICKER_TOPIC, { 'max.message.bytes': '1048588' })
  await ingestion.ready()
  await until('a window in the ledger', async () =>
    (await parts.ledger()).some(({ cause }) => cause === 'too large'),
  )
  await ingestion.stop()
})

test('C10 an announcement that Kafka discards is repeated until it is acknowledged', async () => {
  const { KAFKA_GAPS_TOPIC: topic } = parts.topics.env
  // Rows of the ledger and announcements are larger.
  await setTopicConfig(topic, { 'max.message.bytes': '100' })
  await using ingestion = await parts.ingest({ KAFKA_COMPRESSION: 'none' })
  await ingestion.command.waitForLine(/A message for \S*gaps\S* was discarded/)
  const announced = async () => (await readTopic(topic)).filter(({ key }) => key === RECORDING_KEY)
  assert.deepEqual(await announced(), [])
  await setTopicConfig(topic, { 'max.message.bytes': '1048588' })
  await until('the announcement', async () => (await announced()).length > 0)
  await ingestion.stop()
  assert.equal((await announced()).length, 1, 'and then no more')
})
