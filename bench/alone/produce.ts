import { randomBytes } from 'node:crypto'
import { pino } from 'pino'
import { kafkaPort } from '../../src/foundation/kafka/kafka-port.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import { KafkaProducer } from '../../src/ingestion/kafka-producer.ts'
import type { OutgoingMessage } from '../../src/ingestion/messages/message.ts'
import { decodeAll } from './decode.ts'
import { timed } from './timed.ts'
import { createTopics } from './topics.ts'

const BATCH_SIZE = 500
const OPTIONS = {
  compression: 'lz4',
  lingerMs: 5,
  batchSize: BATCH_SIZE,
  queueMaxBytes: Number.POSITIVE_INFINITY,
} as const

/**
 * Sends prepared messages through ingestion's queue and producer; for the upper limit, also with
 * the Kafka client alone.
 */
export async function produceAll(
  frames: readonly Buffer[],
  brokers: string,
): Promise<Record<string, number>> {
  const kafka = kafkaPort({ brokers: brokers.split(','), tls: null, sasl: null })
  const prefix = `alone-${randomBytes(4).toString('hex')}.`
  const messages: OutgoingMessage[] = []
  decodeAll(frames, (message) => messages.push(message), prefix)
  await createTopics(brokers, [...new Set(messages.map(({ topic }) => topic))])

  const through = async () => {
    const producer = new KafkaProducer(OPTIONS, { clock: systemClock(), kafka }, pino({ level: 'silent' }))
    for (const message of messages) producer.queue.push(message)
    producer.start({
      onAcknowledged: () => {},
      onDiscarded: () => {},
      onKept: () => {},
      onDefect: (error) => {
        throw error
      },
    })
    await producer.settled(AbortSignal.timeout(120_000))
    await producer.stop(AbortSignal.timeout(10_000))
  }
  await through()
  const queued = await timed(messages.length, through)
  const alone = await timed(messages.length, async () => {
    const producer = kafka.producer('tapeline-bench', OPTIONS.compression)
    for (let i = 0; i < messages.length; i += BATCH_SIZE)
      await producer.send(messages.slice(i, i + BATCH_SIZE))
    await producer.close()
  })
  return {
    'messages/s': queued.perSecond,
    µs: queued.micros,
    'client alone messages/s': alone.perSecond,
    'client alone µs': alone.micros,
  }
}
