import assert from 'node:assert/strict'
import { test } from 'node:test'
import { consumerConfig } from '../src/consumer/config.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'

test("F7 retries Kafka and the database after at most 5 s, independent of the exchange's backoff", () => {
  const settings = loadSettings({ SYMBOLS: 'BTCUSDT' }, { cwd: import.meta.dirname })
  assert.equal(settings.BACKOFF_MAX_MS, 60_000)
  assert.deepEqual(consumerConfig(settings).backoff, { initialMs: 1000, maxMs: 5000 })
})
