import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ConsumerConfig, consumerConfig } from '../src/consumer/config.ts'
import { type GroupClient, openGroupClient } from '../src/foundation/consumption/group-client.ts'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { type ConsumerParts, createConsumerParts } from './support/consumer-parts.ts'
import { committedOffsets, removeMembers } from './support/groups.ts'
import { assertEachOnce, LOAD_SYMBOLS, startLoad } from './support/load.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

type Consumer = Awaited<ReturnType<typeof startConsumerProcess>>

async function partitionsOf(consumer: Consumer): Promise<string[]> {
  return (await consumer.status()).partitions.map(({ topic, partition }) => `${topic}:${partition}`)
}

/** Only in topics that get load do stored offsets move. */
const getsLoad = (key: string) => key.includes('.trades:')

/** Three of each of the five topics that a consumer reads. */
const PARTITIONS = 15

/** Waits until every partition has one of these consumers, and all have the same share but one. */
async function untilShared(consumers: readonly Consumer[]): Promise<void> {
  const each = PARTITIONS / consumers.length
  await until(`${each} partitions for each of ${consumers.length}`, async () => {
    const shares = await Promise.all(consumers.map(partitionsOf))
    return (
      shares.every(({ length }) => Math.abs(length - each) < 1) && new Set(shares.flat()).size === PARTITIONS
    )
  })
}

async function storedOffsets(parts: ConsumerParts): Promise<Map<string, number>> {
  const { rows } = await parts.database.query<{ key: string; next: string }>(
    "SELECT topic || ':' || partition AS key, next_offset AS next FROM consumer_offsets",
  )
  return new Map(rows.map(({ key, next }) => [key, Number(next)]))
}

/** Waits until the stored offset of each of these partitions has moved, and the condition holds. */
async function untilMoved(parts: ConsumerParts, partitions: readonly string[], also = async () => true) {
  const before = await storedOffsets(parts)
  await until('the partitions of the killed consumer to be read again', async () => {
    const now = await storedOffsets(parts)
    return partitions.every((key) => (now.get(key) ?? 0) > (before.get(key) ?? 0)) && (await also())
  })
}

/** Checks that the group's offsets equal those of the database, for every partition. */
async function assertCommitted(parts: ConsumerParts): Promise<void> {
  const stored = await storedOffsets(parts)
  const committed = await committedOffsets(parts.topics.env.KAFKA_GROUP_ID)
  for (const [key, next] of stored) assert.equal(committed.get(key), next, key)
}

test('G1 loses and duplicates nothing while consumers join, leave and are killed under load', async (context) => {
  await using parts = await createConsumerParts('migrated')
  const env = { ...parts.env, KAFKA_SESSION_TIMEOUT_MS: '10000' }
  await using first = await startConsumerProcess(env)
  await first.ready()
  await using traffic = startLoad(parts)
  await using second = await startConsumerProcess(env)
  await untilShared([first, second])
  await using third = await startConsumerProcess(env)
  await untilShared([first, second, third])
  await second.stop()
  await untilShared([first, third])

  const lost = (await partitionsOf(first)).filter(getsLoad)
  const killedMs = performance.now()
  await first.command.kill()
  // From here on only the remaining consumer can move them.
  await untilMoved(parts, lost, async () => (await partitionsOf(third)).length === PARTITIONS)
  context.diagnostic(
    `partitions of a killed consumer were read again after ${Math.round(performance.now() - killedMs)} ms`,
  )

  const produced = await traffic.stop()
  await parts.untilTrades(produced * LOAD_SYMBOLS.length)
  await third.stop()
  await assertEachOnce(parts, produced)
  await assertCommitted(parts)
})

test('G2 a consumer paused for longer than its session does no harm when it continues', async () => {
  await using parts = await createConsumerParts('migrated')
  await using sleeper = await startConsumerProcess(parts.env)
  await sleeper.ready()
  await using traffic = startLoad(parts)
  await using other = await startConsumerProcess(parts.env)
  await untilShared([sleeper, other])
  sleeper.command.signal('SIGSTOP')
  await until(
    'the other consumer to own every partition',
    async () => (await partitionsOf(other)).length === PARTITIONS,
  )
  sleeper.command.signal('SIGCONT')
  await untilShared([sleeper, other])
  const produced = await traffic.stop()
  await parts.untilTrades(produced * LOAD_SYMBOLS.length)
  await sleeper.stop()
  // Nothing may be committed during a rebalance.
  await untilShared([other])
  await other.stop()
  await assertEachOnce(parts, produced)
  await assertCommitted(parts)
})

/** Number of consecutive take-overs; the documentation uses `TAPELINE_TEST_TAKEOVERS=10`. */
const TAKEOVERS = Number(process.env['TAPELINE_TEST_TAKEOVERS'] ?? 1)

test('G5 a killed consumer is replaced, and one that pauses for 5 s meanwhile stays a member', async (context) => {
  await using parts = await createConsumerParts('migrated')
  // This test measures the default settings.
  const { KAFKA_SESSION_TIMEOUT_MS: _, ...env } = parts.env
  await using pausing = await startConsumerProcess(env)
  await pausing.ready()
  await using other = await startConsumerProcess(env)
  await untilShared([pausing, other])
  await using traffic = startLoad(parts)
  const tookMs: number[] = []
  for (let round = 0; round < TAKEOVERS; round++) {
    await using victim = await startConsumerProcess(env)
    await untilShared([pausing, other, victim])
    const lost = (await partitionsOf(victim)).filter(getsLoad)
    const killedMs = performance.now()
    await victim.command.kill()
    pausing.command.signal('SIGSTOP')
    setTimeout(() => pausing.command.signal('SIGCONT'), 5000)
    // A transaction sent by the killed consumer may still be committed.
    await sleep(500)
    await untilMoved(parts, lost)
    tookMs.push(performance.now() - killedMs)
    await untilShared([pausing, other])
  }
  tookMs.sort((one, another) => one - another)
  const [median = 0, worst = 0] = [tookMs[Math.floor(tookMs.length / 2)], tookMs.at(-1)]
  context.diagnostic(
    `${tookMs.length} take-overs after SIGKILL: median ${Math.round(median)} ms, worst ${Math.round(worst)} ms`,
  )
  assert.doesNotMatch(pausing.command.output(), /Group membership lost/, 'a pause of 5 s costs no membership')
  const produced = await traffic.stop()
  await parts.untilTrades(produced * LOAD_SYMBOLS.length)
  await assertEachOnce(parts, produced)
})

test('G3 a commit under an old generation fails and moves nothing', async () => {
  await using parts = await createConsumerParts()
  const topic = parts.topics.env.KAFKA_TRADES_TOPIC
  const settings = consumerConfig(loadSettings({ ...parts.env }, { cwd: import.meta.dirname }))
  // It learns of the rebalance only at its next heartbeat, long after the broker has removed it.
  const deaf = {
    ...settings,
    sessionTimeoutMs: 60_000,
    heartbeatIntervalMs: 50_000,
    rebalanceTimeoutMs: 60_000,
  }
  const old = await joined(deaf, topic)
  try {
    await old.client.commit([{ topic, partition: 0, nextOffset: 5 }])
    await removeMembers(settings.groupId)
    const successor = await joined(settings, topic)
    try {
      assert.ok(successor.generation > old.generation)
      assert.equal(successor.partitions, 3, 'the successor owns every partition')
      await assert.rejects(old.client.commit([{ topic, partition: 0, nextOffset: 9 }]))
      await successor.client.commit([{ topic, partition: 1, nextOffset: 7 }])
      const committed = await committedOffsets(settings.groupId)
      assert.deepEqual([committed.get(`${topic}:0`), committed.get(`${topic}:1`)], [5, 7])
    } finally {
      await successor.client.close()
    }
  } finally {
    await old.client.close().catch(() => {}) // It is no longer a member, and cannot leave.
  }
})

async function joined(
  config: ConsumerConfig,
  topic: string,
): Promise<{ client: GroupClient; generation: number; partitions: number }> {
  const client = openGroupClient({ ...config, clientId: 'tapeline-test' }, [topic])
  const first = Promise.withResolvers<{ generation: number; partitions: number }>()
  await client.join({
    onRebalance: () => {},
    onJoined: (generation, partitions) => first.resolve({ generation, partitions: partitions.length }),
    onEnded: (error) => first.reject(error),
  })
  return { client, ...(await first.promise) }
}
