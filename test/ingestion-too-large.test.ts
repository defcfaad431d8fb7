import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { RECORDING_KEY } from '../src/foundation/market/recording.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestTopics, setTopicConfig, type TestTopics } from './support/kafka.ts'
import { readLedger, readTopic } from './support/messages.ts'
import { startIngestionProcess } from './support/services.ts'
import { waitFor } from './support/wait-for.ts'

const FAST = { BACKOFF_INITIAL_MS: '100', BACKOFF_MAX_MS: '500' }

let topics: TestTopics
let exchange: Exchange

beforeEach(async () => {
  topics = await createTestTopics({ prefix: 'refused' })
  exchange = await startSimulatedExchange({ messagesPerSecond: 600, historyMinutes: 5 })
})

afterEach(async () => {
  await exchange.close()
  await topics.delete()
})

const envOf = (more: Readonly<Record<string, string>> = {}) => ({
  ...topics.env,
  BINANCE_WS_URL: exchange.wsUrl,
  BINANCE_REST_URL: exchange.restUrl,
  ...FAST,
  ...more,
})

const gapsOf = () => readLedger(topics.env.KAFKA_GAPS_TOPIC)

test('K8 an oversized batch is sent in halves; an event that is too large alone becomes a dead letter', async () => {
  await using ingestion = await startIngestionProcess(envOf({ KAFKA_COMPRESSION: 'none' }))
  await ingestion.ready()
  await setTopicConfig(topics.env.KAFKA_BOOK_TICKER_TOPIC, { 'max.message.bytes': '420' })
  await waitFor(async () => (await readTopic(topics.env.KAFKA_BOOK_TICKER_TOPIC)).length > 3000, {
    timeoutMs: 30_000,
    what: 'quotes in small batches',
  })
  await setTopicConfig(topics.env.KAFKA_BOOK_TICKER_TOPIC, { 'max.message.bytes': '100' })
  await waitFor(
    async () =>
      (await readTopic(topics.env.KAFKA_DEAD_LETTERS_TOPIC)).some(({ value }) =>
        String(value).includes('"u":'),
      ),
    { timeoutMs: 30_000, what: 'dead letters' },
  )
  await setTopicConfig(topics.env.KAFKA_BOOK_TICKER_TOPIC, { 'max.message.bytes': '1048588' })
  await ingestion.ready()
  await waitFor(async () => (await gapsOf()).some(({ cause }) => cause === 'too large'), {
    timeoutMs: 20_000,
    what: 'a window in the ledger',
  })
  await ingestion.stop()
})

test('C10 an announcement that Kafka discards is repeated until it is acknowledged', async () => {
  const { KAFKA_GAPS_TOPIC: topic } = topics.env
  // Rows of the ledger and announcements are larger.
  await setTopicConfig(topic, { 'max.message.bytes': '100' })
  await using ingestion = await startIngestionProcess(envOf({ KAFKA_COMPRESSION: 'none' }))
  await ingestion.command.waitForLine(/A message for \S*gaps\S* was discarded/, 60_000)
  const announced = async () => (await readTopic(topic)).filter(({ key }) => key === RECORDING_KEY)
  assert.deepEqual(await announced(), [])
  await setTopicConfig(topic, { 'max.message.bytes': '1048588' })
  await waitFor(async () => (await announced()).length > 0, { timeoutMs: 60_000, what: 'the announcement' })
  await ingestion.stop()
  assert.equal((await announced()).length, 1, 'and then no more')
})
