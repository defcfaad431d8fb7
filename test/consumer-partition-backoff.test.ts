import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import { keyOf } from '../src/foundation/kafka/partition.ts'
import { mulberry32, Random } from '../src/sandbox/simulator/market/random.ts'
import { SymbolFeed } from './consumer-simulation/market.ts'
import { MemoryDatabase } from './consumer-simulation/memory-database.ts'
import { MemoryGroup } from './consumer-simulation/memory-group.ts'
import { MemoryLog } from './consumer-simulation/memory-log.ts'
import { ConsumerProcess } from './consumer-simulation/process.ts'
import { VirtualClock } from './support/virtual-clock.ts'

/** The real worker with an in-memory Kafka and database, and the warnings that it logged. */
function aConsumer() {
  const clock = new VirtualClock()
  const random = new Random(1, mulberry32)
  const log = new MemoryLog(['trades', 'quotes', 'gaps', 'letters'], random)
  const database = new MemoryDatabase(clock, random)
  const group = new MemoryGroup(clock, random, log.partitions)
  const warnings: string[] = []
  const logger = pino({ level: 'warn' }, { write: (line: string) => void warnings.push(line) })
  const process = new ConsumerProcess({ clock, random, log, group, database, logger })
  const feeds = [0, 1, 2].map((partition) => new SymbolFeed(`SYMBOL${partition}`, random))
  return {
    clock,
    log,
    database,
    worker: process.worker,
    warnings,
    /** One trade per second in each partition. */
    async trade(seconds: number) {
      for (let i = 0; i < seconds; i++) {
        for (const [partition, feed] of feeds.entries())
          log.append('trades', partition, feed.trade(clock.wallMicros() / 1000, true))
        await clock.advance(1000)
      }
    },
    stored: (partition: number) =>
      database.state.offsets.get(keyOf({ topic: 'trades', partition }))?.nextOffset ?? 0,
    async stop() {
      const stopped = process.stop()
      await clock.advance(5000)
      await stopped
    },
  }
}

for (const ailment of ['no leader', 'NOT_LEADER_OR_FOLLOWER'] as const) {
  test(`F8 reads the other partitions while one cannot be read (${ailment}), logs it once, and resumes later`, async () => {
    const consumer = aConsumer()
    await consumer.trade(20)
    assert.equal(consumer.worker.problem, null)
    const before = consumer.stored(1)
    const said = consumer.warnings.length

    consumer.log.partition('trades', 1).ailment = ailment
    await consumer.trade(120)
    for (const partition of [0, 2])
      assert.ok(consumer.stored(partition) >= 130, `partition ${partition}: ${consumer.stored(partition)}`)
    assert.ok(consumer.stored(1) <= before + 5)
    assert.match(
      consumer.worker.problem ?? '',
      /^partition 1 of trades cannot be read: (it has no leader|NOT_)/,
    )
    assert.deepEqual(
      consumer.warnings
        .slice(said)
        .map((line) => JSON.parse(line).msg.replace(/(it has no leader|NOT_\w+)$/, 'WHY')),
      ['A partition cannot be read, retrying; other partitions are not affected: WHY'],
    )

    consumer.log.partition('trades', 1).ailment = null
    await consumer.trade(20)
    assert.ok(consumer.stored(1) >= 150, `${consumer.stored(1)}`)
    assert.equal(consumer.worker.problem, null)
    await consumer.stop()
  })
}

test("F8 looks up a partition's leader before each retry, with increasing waits", async () => {
  const consumer = aConsumer()
  await consumer.trade(10)
  const { log } = consumer
  const asked: number[] = []
  const one = log.partition('trades', 1)
  log.onConnect = () => asked.push(consumer.clock.monotonicMs())
  one.ailment = 'NOT_LEADER_OR_FOLLOWER'
  await consumer.trade(100)
  // One lookup every 15 s as usual, and one before each attempt: after 1, 2, 4, 8, 10, 10 … s, at
  // least half of each.
  assert.ok(asked.length >= 6 + 8 && asked.length <= 7 + 21, `${asked.length} times`)
  await consumer.stop()
})
