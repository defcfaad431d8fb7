import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import type { KafkaPort } from '../src/foundation/kafka/kafka-port.ts'
import { KafkaProducer } from '../src/ingestion/kafka-producer.ts'
import { outgoing } from './support/core-alone.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const LINGER_MS = 10

/** Truncates delays to milliseconds and counts timers from the start of its tick, as Node does. */
class TimersOfNode extends VirtualClock {
  timers = 0

  override schedule(delayMs: number, run: () => void): () => void {
    this.timers++
    const tickBeganMs = Math.floor(this.monotonicMs() * 4) / 4
    return super.schedule(Math.max(1, Math.trunc(delayMs)) + tickBeganMs - this.monotonicMs(), run)
  }
}

/** Acknowledges at once. */
const kafka: Pick<KafkaPort, 'producer'> = {
  producer: () => ({
    topics: async () => new Map(),
    async send(records, options) {
      options?.onAcknowledged?.({ topic: 'trades', partition: 0, offset: 0 }, records)
    },
    close: async () => {},
  }),
}

test('waits for a batch with one timer, and sends it when its oldest message has waited for the linger', async () => {
  const clock = new TimersOfNode()
  const waitsMs: number[] = []
  const producer = new KafkaProducer(
    { compression: 'none', batchSize: 500, queueMaxBytes: 1 << 20, lingerMs: LINGER_MS },
    { clock, kafka },
    pino({ level: 'silent' }),
  )
  producer.start({
    onAcknowledged: ([first]) => waitsMs.push(clock.monotonicMs() - (first?.queuedAtMs ?? 0)),
    onDiscarded: () => assert.fail('discarded'),
    onKept: () => assert.fail('kept after discarded ones'),
    onDefect: (error) => assert.fail(String(error)),
  })
  for (let i = 0; i < 1000; i++) {
    await clock.advance(1.1)
    producer.queue.push(outgoing({ queuedAtMs: clock.monotonicMs() }))
  }
  await clock.advance(2 * LINGER_MS)
  await producer.stop(AbortSignal.abort())
  assert.equal(clock.timers, waitsMs.length)
  assert.ok(waitsMs.length > 80)
  for (const ms of waitsMs) assert.ok(Math.abs(ms - LINGER_MS) <= 1, `${ms} ms`)
})
