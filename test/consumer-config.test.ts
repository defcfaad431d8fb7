import assert from 'node:assert/strict'
import { test } from 'node:test'
import { consumerConfig } from '../src/consumer/config.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'

test('F7 Kafka and the database are tried again after 5 s at most, whatever the exchange is granted', () => {
  const settings = loadSettings({ SYMBOLS: 'BTCUSDT' }, { cwd: import.meta.dirname })
  assert.equal(settings.BACKOFF_MAX_MS, 60_000)
  assert.deepEqual(consumerConfig(settings).backoff, { initialMs: 1000, maxMs: 5000 })
})
