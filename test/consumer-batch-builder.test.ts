import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { pino } from 'pino'
import type { Batch } from '../src/consumer/batch.ts'
import { BatchBuilder } from '../src/consumer/batch-builder.ts'
import { BatchWriter, WriteCounts } from '../src/consumer/batch-writer.ts'
import { headersOf, mirroredLetter } from '../src/foundation/dead-letters/dead-letter.ts'
import type { FetchedPartition } from '../src/foundation/kafka/codec/fetch-api.ts'
import { systemClock, Wake } from '../src/foundation/runtime/clock.ts'
import { column, columns } from './support/columns.ts'
import { fetched, record, TOPIC_ID, tradeValue } from './support/records.ts'

const at = (partition: number, nextOffset: number, topic = 't') => {
  return { topic, topicId: TOPIC_ID, partition, nextOffset, leaderEpoch: -1 }
}

/** A builder for partitions at these positions. */
function batchBuilder(
  positions: ReadonlyArray<ReturnType<typeof at>>,
  options: { batchSize?: number; batchMaxBytes?: number; maxSealed?: number; maxBytes?: number } = {},
) {
  const kindOf = new Map([
    ['t', 'trades'],
    ['d', 'deadLetters'],
  ] as const)
  const limits = {
    batchSize: 500,
    flushIntervalMs: 2000,
    maxSealed: 4,
    maxBytes: 32 << 20,
    batchMaxBytes: 8 << 20,
  }
  const core = new BatchBuilder({ kindOf, ...limits, ...options })
  core.assign(positions)
  return core
}

const trades = (partition: number, from: number, to: number): FetchedPartition =>
  fetched(
    't',
    partition,
    from,
    Array.from({ length: to - from }, (_, i) => record(tradeValue({ t: from + i }))),
  )

/** Stores all batches that are sealed. */
function* storeAll(core: BatchBuilder): Generator<Batch> {
  for (let batch = core.take(0); batch !== null; batch = core.take(0)) {
    yield batch
    core.stored(batch)
  }
}

/** The only batch. */
function flushed(core: BatchBuilder): Batch {
  core.flush()
  return core.take(0) ?? assert.fail('there is no batch')
}

test('seals a batch at 500 messages, or 2 s after its first message', () => {
  const core = batchBuilder([at(0, 0)])
  core.accept(trades(0, 0, 499), 1000, 0)
  assert.equal(core.take(0), null)
  assert.equal(core.dueInMs(1500), 1500)
  core.accept(trades(0, 499, 600), 1600, 0)
  assert.equal(core.take(0)?.messages, 500)
  assert.equal(core.dueInMs(1600), 2000, 'the rest waits from its first message on')
  assert.equal(core.dueInMs(3700), 0)
})

test('advances a partition only over messages it has accepted, whatever the fetches return', () => {
  const chunk = fc.tuple(
    fc.integer({ min: 0, max: 1 }),
    fc.integer({ min: 0, max: 60 }),
    fc.integer({ min: 1, max: 30 }),
  )
  fc.assert(
    fc.property(fc.array(chunk, { maxLength: 40 }), fc.integer({ min: 1, max: 20 }), (chunks, batchSize) => {
      const core = batchBuilder([at(0, 10), at(1, 10)], { batchSize, maxSealed: 1000 })
      for (const [partition, from, length] of chunks)
        core.accept(trades(partition, from, from + length), 0, 0)
      core.flush()
      const reached = new Map([0, 1].map((partition) => [partition, 10]))
      for (const batch of storeAll(core)) {
        let rows = 0
        for (const { partition, firstOffset, nextOffset } of batch.steps.values()) {
          assert.equal(firstOffset, reached.get(partition), 'a batch begins where the previous one ended')
          assert.ok(nextOffset > firstOffset)
          reached.set(partition, nextOffset)
          rows += nextOffset - firstOffset
        }
        assert.equal(batch.rows.trades.length, rows, 'one row for every offset')
      }
      assert.deepEqual(column(core.positions(), 'offset'), [reached.get(0), reached.get(1)])
      assert.equal(core.pending, 0)
    }),
  )
})

test('skips a hole only on request', () => {
  const core = batchBuilder([at(0, 5)])
  assert.deepEqual(core.accept(trades(0, 9, 12), 0, 0), { topic: 't', partition: 0, from: 5, to: 9 })
  assert.equal(core.pending, 0)
  core.skipTo({ topic: 't', topicId: TOPIC_ID, partition: 0, offset: 9 }, 0)
  assert.equal(core.accept(trades(0, 9, 12), 0, 0), null)
  const [step] = flushed(core).steps.values()
  assert.deepEqual([step?.firstOffset, step?.nextOffset], [5, 12], 'the stored offset can pass the hole')
})

test('after a rebalance, continues kept partitions, starts new ones at their stored offset, and accepts nothing of lost ones', () => {
  const core = batchBuilder([at(0, 0), at(1, 0)])
  core.accept(trades(0, 0, 10), 0, 0)
  core.accept(trades(1, 0, 10), 0, 0)
  core.assign([at(0, 3), at(2, 70)])
  assert.deepEqual(core.positions(), [
    { topic: 't', topicId: TOPIC_ID, partition: 0, offset: 10, leaderEpoch: -1 },
    { topic: 't', topicId: TOPIC_ID, partition: 2, offset: 70, leaderEpoch: -1 },
  ])
  core.accept(trades(1, 10, 20), 0, 0)
  assert.equal(core.counters.consumed, 20)
})

test('K3 gathers larger batches while the database is slow, stops at a limit, and counts its messages', () => {
  const core = batchBuilder([at(0, 0)], { batchSize: 10, maxSealed: 2 })
  core.accept(trades(0, 0, 109), 0, 0)
  assert.equal(core.hasRoom, true, 'ten sealed batches, and ninety-nine more messages')
  core.accept(trades(0, 109, 115), 0, 0)
  assert.equal(core.hasRoom, false)
  const sizes: number[] = []
  for (const batch of storeAll(core)) {
    assert.equal(core.take(0), batch, 'the same batch until it is stored')
    sizes.push(batch.messages)
  }
  assert.deepEqual(
    [core.hasRoom, sizes, core.pending, core.progress()[0]?.nextOffset],
    [true, [10, 100], 5, 110],
  )
})

test('K3 a batch that became full while the previous one was written is written next', () => {
  const core = batchBuilder([at(0, 0)], { batchSize: 10 })
  core.accept(trades(0, 0, 10), 0, 0)
  const sizes: number[] = []
  for (const batch of storeAll(core)) {
    // The second was sealed while nothing else waited.
    if (sizes.push(batch.messages) === 1) core.accept(trades(0, 10, 34), 0, 0)
  }
  assert.deepEqual(sizes, [10, 10, 14])
})

test('discards and counts unstored messages when positions must be read again', () => {
  const core = batchBuilder([at(0, 0)], { batchSize: 10 })
  core.accept(trades(0, 0, 25), 0, 0)
  const writing = core.take(0)
  core.forgetPositions(true)
  assert.deepEqual([core.pending, core.counters.discarded, core.positions()], [10, 15, []])
  if (writing !== null) core.abandon(writing)
  assert.deepEqual([core.pending, core.counters.discarded, core.take(0)], [0, 25, null])
})

test('turns a bad message into a dead letter with its bytes, reason and origin', () => {
  const core = batchBuilder([at(0, 7)])
  const bad = record(Buffer.from('{"e":'), Buffer.from('BTCUSDT'))
  core.accept(fetched('t', 0, 7, [bad, record(tradeValue({ t: 1 }))]), 0, 1_723_161_256_000)
  const batch = flushed(core)
  assert.equal(batch.rows.trades.length, 1)
  const row = batch.found[0] ?? assert.fail('no dead letter')
  assert.deepEqual(
    [row.topic, row.partition, row.offset, row.reason, row.payload?.toString(), row.key?.toString()],
    ['t', 0, 7, 'value is not JSON', '{"e":', 'BTCUSDT'],
  )
  assert.deepEqual(Object.fromEntries(headersOf(row)), {
    origin: 'consumer',
    origin_topic: 't',
    origin_topic_id: TOPIC_ID,
    origin_partition: '0',
    origin_offset: '7',
    origin_headers: '[]',
    reason: 'value is not JSON',
    time: '1723161256000',
  })
})

test('mirrors the frames that ingestion rejected, and not its own dead letters', () => {
  const core = batchBuilder([{ topic: 'd', topicId: TOPIC_ID, partition: 0, nextOffset: 0, leaderEpoch: -1 }])
  const letter = (origin: string) =>
    record(Buffer.from('frame'), null, { origin, reason: 'not JSON', time: '1723161256000' })
  core.accept(fetched('d', 0, 0, [letter('ingestion'), letter('consumer')]), 0, 0)
  const batch = flushed(core)
  assert.deepEqual(columns(batch.mirrored, 'origin', 'reason', 'offset'), [['ingestion', 'not JSON', 0]])
  assert.equal(batch.messages, 2)
})

test('D7 restores the row of a dead letter from the copy in the topic; a copy without an origin gives no row', () => {
  const original = record(Buffer.from('{'), Buffer.from('BTCUSDT'), { schema: 'trade/1', epoch: '2' })
  const first = batchBuilder([at(0, 7)])
  first.accept(fetched('t', 0, 7, [original]), 0, 1_723_161_256_000)
  const row = flushed(first).found[0] ?? assert.fail('no dead letter')
  const copy = (changed: Readonly<Record<string, string>>) =>
    record(row.payload, row.key, { ...Object.fromEntries(headersOf(row)), ...changed })
  const foreign = ['origin_topic', 'origin_topic_id', 'origin_partition', 'origin_offset'].flatMap((name) =>
    ['', '-1!', "x'y", '9'.repeat(300)].map((value) => copy({ [name]: value })),
  )
  const core = batchBuilder(
    [{ topic: 'd', topicId: TOPIC_ID, partition: 0, nextOffset: 0, leaderEpoch: -1 }],
    { batchSize: 100 },
  )
  core.accept(fetched('d', 0, 0, [copy({}), ...foreign, copy({ origin_headers: '{' })]), 0, 0)
  const batch = flushed(core)
  assert.deepEqual(batch.copies[0], row)
  const { headers: _, ...withoutHeaders } = row
  assert.deepEqual(batch.copies.slice(1), [withoutHeaders])
})

test('D1 a dead letter of ingestion keeps the epoch of its ids, for verify', () => {
  const headersWith = (more: Readonly<Record<string, string>>) => {
    const message = record(Buffer.from('{}'), null, {
      origin: 'ingestion',
      reason: 'because',
      time: '1',
      ...more,
    })
    return mirroredLetter({ topic: 'd', topicId: TOPIC_ID, partition: 0 }, message, 0)?.headers
  }
  assert.equal(headersWith({}), undefined)
  assert.deepEqual(headersWith({ epoch: '3' }), [['epoch', '3']])
  assert.equal(headersWith({ epoch: '4000' }), undefined)
})

test('K1 stops accepting messages at a byte limit, and resumes when they are stored', () => {
  const core = batchBuilder([at(0, 0)], { batchSize: 10, maxSealed: 1000, maxBytes: 20_000 })
  core.accept(trades(0, 0, 10), 0, 0)
  assert.equal(core.hasRoom, true)
  core.accept(trades(0, 10, 60), 0, 0)
  assert.ok(core.heldBytes > 20_000)
  assert.equal(core.hasRoom, false)
  assert.ok([...storeAll(core)].length > 1)
  assert.deepEqual([core.heldBytes, core.hasRoom], [0, true])
})

test('P4 begins a separate batch when another owner has advanced a partition meanwhile', () => {
  const core = batchBuilder([at(0, 0)])
  core.accept(trades(0, 0, 10), 0, 0)
  core.assign([])
  core.assign([at(0, 30)])
  core.accept(trades(0, 30, 40), 0, 0)
  core.flush()
  const steps = [...storeAll(core)].flatMap((batch) => [...batch.steps.values()])
  assert.deepEqual(
    steps.map(({ firstOffset, nextOffset }) => `${firstOffset}..${nextOffset}`),
    ['0..10', '30..40'],
  )
})

test('reports the receipt time of the last stored event of each partition, without pending or revoked events', () => {
  const baseUs = 1_723_161_255_400_000
  const core = batchBuilder([at(0, 0), at(1, 0)], { batchSize: 2 })
  const received = (partition: number, from: number, ...us: number[]) =>
    fetched(
      't',
      partition,
      from,
      us.map((after, i) => record(tradeValue({ t: from + i, ingestion_timestamp_us: baseUs + after }))),
    )
  const told = () =>
    core
      .progress()
      .flatMap(({ partition, receivedUs: us }) => (us === null ? [] : [[partition, us - baseUs]]))
  const storeNext = () => core.stored(core.take(0) ?? assert.fail('there is no batch'))
  core.accept(received(0, 0, 1, 2, 3), 0, 0)
  core.accept(received(1, 0, 9), 0, 0)
  assert.deepEqual(told(), [], 'nothing is stored')
  storeNext()
  assert.deepEqual(told(), [[0, 2]])
  storeNext()
  assert.deepEqual(told(), [
    [0, 3],
    [1, 9],
  ])

  core.accept(fetched('t', 0, 3, [record(Buffer.from('no JSON')), record(null)]), 0, 0)
  storeNext()
  assert.deepEqual(told()[0], [0, 3], 'an unreadable message has no time')

  core.accept(received(0, 5, 20, 21), 0, 0)
  core.assign([at(1, 1)])
  storeNext()
  assert.deepEqual(told(), [[1, 9]])
  core.assign([at(0, 0), at(1, 1)])
  core.accept(received(0, 0, 1, 2), 0, 0)
  storeNext()
  assert.deepEqual(told()[1], [0, 2], 'read again from an earlier offset, the time is older again')

  core.accept(received(0, 2, 3, 4), 0, 0)
  const heldUp = core.take(0) ?? assert.fail('there is no batch')
  core.assign([at(1, 1)])
  core.assign([at(0, 9), at(1, 1)])
  core.stored(heldUp)
  assert.deepEqual(told(), [[1, 9]], 'another owner has stored more meanwhile')
})

test('a batch that alone fills the memory wakes the fetcher once it is stored', async () => {
  const core = batchBuilder([at(0, 0)], { maxBytes: 1000, batchSize: 5 })
  const clock = systemClock()
  const [filled, room] = [new Wake(clock), new Wake(clock)]
  let stored = 0
  const writer = new BatchWriter(
    {
      ...{ clock, random: () => 0.5, log: pino({ level: 'silent' }), counts: new WriteCounts() },
      ...{ batchBuilder: core, filled, room, sendLetters: async () => {}, checkSource: async () => true },
      ...{ onLost() {}, onRecreated() {}, onMoved() {} },
      store: {
        async write(batch) {
          stored += batch.messages
          return { inserted: batch.messages, deadLettered: 0, rows: [], isOfRecreated: false }
        },
        probe: () => assert.fail('no row is refused'),
      },
    },
    { initialMs: 10, maxMs: 100 },
  )
  const running = writer.run()
  for (let from = 0; from < 20; from += 5) {
    core.accept(trades(0, from, from + 5), clock.monotonicMs(), 0)
    assert.equal(core.hasRoom, false)
    filled.ring()
    // As the fetcher does, which has no other reason to look again.
    while (!core.hasRoom) await room.wait()
  }
  assert.equal(stored, 20)
  writer.drain()
  await running
})
