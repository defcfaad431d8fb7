import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import type { RecordFetcher } from '../src/foundation/kafka/kafka-port.ts'
import { STREAM_TYPES } from '../src/foundation/market/event.ts'
import { recoverParts } from '../src/ingestion/checkpoint/recovery.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const NAMES = { trades: 't', bookTicker: 'b', depth: 'o', gaps: 'g', checkpoints: 'c', deadLetters: 'd' }
const METADATA = new Map(Object.values(NAMES).map((name) => [name, { id: name, partitions: 0 }]))

test('a start that Kafka interrupts closes the clients that it had opened', async () => {
  const open = new Set<string>()
  const fetcher = (clientId: string): RecordFetcher => {
    open.add(clientId)
    return {
      async connect() {
        if (clientId === 'tapeline-ingestion-watch') throw new Error('the broker is away')
        return METADATA
      },
      leaderOf: () => null,
      offsetRanges: async () => [],
      fetch: async () => [],
      read: async () => assert.fail('there is nothing to read'),
      async close() {
        open.delete(clientId)
      },
    }
  }
  const { signal } = new AbortController()
  const ports = { kafka: { fetcher }, clock: new VirtualClock() }
  const parts = recoverParts(
    ports,
    NAMES,
    STREAM_TYPES,
    new Set(['BTCUSDT']),
    pino({ level: 'silent' }),
    signal,
  )
  await assert.rejects(parts, /the broker is away/)
  assert.deepEqual([...open], [])
})
