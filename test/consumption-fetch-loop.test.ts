import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { pino } from 'pino'
import { FetchLoop } from '../src/foundation/consumption/fetch-loop.ts'
import type { MessageBuffer } from '../src/foundation/consumption/message-buffer.ts'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { RecordSender } from '../src/foundation/kafka/record-sender.ts'
import { systemClock, Wake } from '../src/foundation/runtime/clock.ts'
import { brokers, createTopics, uniqueTopics } from './support/kafka.ts'
import { connectionTo, outgoing } from './support/kafka-clients.ts'
import { until } from './support/wait-for.ts'

const PARTITIONS = 12
const BATCHES = 8

const LIMITS = { maxWaitMs: 100, minBytes: 1, maxBytes: 256 << 10, partitionMaxBytes: 64 << 10 }

/** An answer has room for four of the small batches; a large one comes only at its beginning. */
for (const batchBytes of [60 << 10, 100 << 10]) {
  test(`K1 partitions with a backlog leave the others their turns, in batches of ${batchBytes} bytes`, async () => {
    await using topics = uniqueTopics('turns')
    const topic = topics.env.KAFKA_TRADES_TOPIC
    const connection = connectionTo(brokers())
    await createTopics([topic], PARTITIONS)
    const sender = new RecordSender(connection, 'tapeline-test', 'none')
    for (let i = 0; i < BATCHES; i++)
      await sender.send(
        Array.from({ length: PARTITIONS }, (_, partition) =>
          outgoing({ topic, partition, value: randomBytes(batchBytes) }),
        ),
      )
    await sender.close()

    const offsets = Array.from({ length: PARTITIONS }, () => 0)
    let whenAllBegan: readonly number[] | null = null
    const buffer: MessageBuffer = {
      hasRoom: true,
      positions: () => offsets.map((offset, partition) => ({ topic, topicId: '', partition, offset })),
      accept({ partition, nextOffset }) {
        offsets[partition] = nextOffset ?? offsets[partition] ?? 0
        if (offsets.every((offset) => offset > 0)) whenAllBegan ??= [...offsets]
        return null
      },
      skipTo: () => assert.fail('nothing is missing'),
    }
    const clock = systemClock()
    const loop = new FetchLoop(
      { limits: LIMITS, backoff: { initialMs: 100, maxMs: 1000 } },
      {
        clock,
        random: Math.random,
        log: pino({ level: 'silent' }),
        buffer,
        filled: new Wake(),
        room: new Wake(),
        openFetcher: () => new PartitionFetcher(connection, 'tapeline-test', [topic]),
        onConnected: () => {},
        onTruncated: async () => assert.fail('nothing is lost'),
        onFatal: assert.ifError,
      },
    )
    loop.start()
    await until('a message of each partition', () => whenAllBegan !== null)
    await loop.stop()
    const most = Math.max(...(whenAllBegan ?? []))
    assert.ok(most <= 2, `${most} batches of one partition were read before the first of another`)
  })
}
