import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { RECORDING_KEY } from '../src/foundation/market/recording.ts'
import { createTopics, deleteTopic, recreateTopic } from './support/kafka.ts'
import { readTopic } from './support/messages.ts'
import { createPipelineParts, type PipelineParts } from './support/pipeline-parts.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess, untilAcknowledged, untilCaughtUp } from './support/services.ts'
import { until } from './support/wait-for.ts'

/** They start services several times, which takes long on a busy machine. */
const LONG = { timeout: 240_000 }

let parts: PipelineParts

beforeEach(async () => {
  parts = await createPipelineParts({ messagesPerSecond: 300 })
})

afterEach(() => parts[Symbol.asyncDispose]())

const count = (sql: string) => parts.count(sql)

/** Waits until every id of every trade stream is stored, from its first on. */
async function whole(also: () => Promise<boolean> = async () => true): Promise<void> {
  const missing = `SELECT coalesce(sum(missing), 0) FROM (
    SELECT max(trade_id) - min(trade_id) + 1 - count(DISTINCT trade_id) AS missing FROM trades GROUP BY symbol, event_type) AS streams`
  await until(
    'every trade to be stored, and the further condition',
    async () => (await also()) && (await count(missing)) === 0,
    90_000,
  )
}

const status = (name: string) =>
  count(`SELECT count(*) FROM gaps WHERE from_id IS NOT NULL AND status = '${name}'`)

test(
  'L6 C8 a running ingestion continues in recreated topics, and backfills their unread part',
  LONG,
  async () => {
    {
      await using consumer = await startConsumerProcess(parts.env)
      await consumer.ready()
      await using ingestion = await parts.ingest()
      await ingestion.ready()
      await parts.untilTrades(301)
      await consumer.stop()
      await ingestion.command.kill()
    }
    await using ingestion = await parts.ingest()
    await ingestion.ready()
    const filled = async () => (await parts.ledger()).filter((row) => row.status === 'filled').length
    await until(
      'gaps that were filled while no consumer ran',
      async () => (await filled()) >= 3 && (await ingestion.status()).openGaps.length === 0,
    )
    await recreateTopic(parts.topics.env.KAFKA_TRADES_TOPIC, 3)
    await ingestion.command.waitForLine(/trades was deleted and recreated/)
    await using consumer = await startConsumerProcess(parts.env)
    await consumer.command.waitForLine(/asked ingestion to reopen/, 90_000)
    await whole(
      async () =>
        (await status('open')) === 0 &&
        (await count("SELECT count(*) FROM gaps WHERE cause = 'recreated' AND event_type <> 'bookTicker'")) >
          0,
    )
    // Under both, one after the other, since each is missing for a while.
    for (const setting of ['KAFKA_CHECKPOINTS_TOPIC', 'KAFKA_GAPS_TOPIC', 'KAFKA_TRADES_TOPIC'] as const) {
      const topic = parts.topics.env[setting]
      await deleteTopic(topic)
      await ingestion.until(`readiness to name ${topic}`, ({ reason }) => reason.includes(topic))
      await createTopics([topic], 3)
      await ingestion.command.waitForLine(new RegExp(`${topic} was deleted and recreated`))
      await ingestion.ready()
    }
    const checkpoints = await readTopic(parts.topics.env.KAFKA_CHECKPOINTS_TOPIC)
    const starts = checkpoints.filter(({ value }) => value?.includes('"kind":"start"') === true)
    assert.equal(starts.length, 3)
    assert.ok((await filled()) >= 3, 'the new ledger has the rows of the old one')
    const announced = (await readTopic(parts.topics.env.KAFKA_GAPS_TOPIC)).filter(
      ({ key }) => key === RECORDING_KEY,
    )
    assert.equal(announced.length, 1, 'the new ledger has the announcement')
    const { acknowledged } = (await ingestion.status()).counters
    await untilAcknowledged(ingestion, acknowledged + 500)
    await whole(async () => (await status('open')) === 0)
    assert.equal(await status('unrecoverable'), 0)
    // The checkpoints of the new topics are valid.
    await ingestion.command.kill()
    await using next = await parts.ingest()
    await next.ready()
    await whole(async () => (await status('open')) === 0)
    await next.stop()
    await untilCaughtUp(consumer)
    await consumer.stop()
    await startTapeline(['verify'], { env: parts.env }).assertExit(0)
  },
)

test('K5 readiness names a deleted topic as soon as a send to it is refused', async () => {
  await using ingestion = await parts.ingest()
  await ingestion.ready()
  await deleteTopic(parts.topics.env.KAFKA_TRADES_TOPIC)
  const { reason } = await ingestion.until('ingestion to be unready', ({ ready }) => !ready)
  assert.match(reason, /^Kafka has not taken .*\.trades\/\d.* for \d s: A topic is missing on the broker/)
  await ingestion.command.kill()
})

test('L5 gaps retry makes ingestion fill an unrecoverable gap, also after a restart', LONG, async () => {
  const run = async (code: number, ...args: string[]) => {
    await using command = startTapeline(['gaps', ...args], { env: parts.env })
    await command.assertExit(code, 60_000)
    return command.output()
  }
  await using consumer = await startConsumerProcess(parts.env)
  await consumer.ready()
  for (const more of [{}, { BACKFILL_MAX_IDS: '0' }]) {
    await using ingestion = await parts.ingest(more)
    await ingestion.ready()
    await untilAcknowledged(ingestion, 300)
    if ('BACKFILL_MAX_IDS' in more) {
      await until(
        'gaps that are too large',
        async () => (await status('unrecoverable')) >= 3 && (await status('open')) === 0,
      )
      await ingestion.stop()
    } else await ingestion.command.kill()
  }
  await untilCaughtUp(consumer)
  assert.match(await run(0, 'list', '--status', 'unrecoverable'), /unrecoverable {2}restart: too large/)
  const lost = await status('unrecoverable')
  assert.match(await run(0, 'retry', '--dry-run'), new RegExp(`${lost} gaps would be reopened`))
  assert.equal(await status('unrecoverable'), lost)
  const { rows } = await parts.database.query<{ gap_id: string }>(
    "SELECT gap_id FROM gaps WHERE status = 'unrecoverable' AND from_id IS NOT NULL ORDER BY gap_id",
  )
  const [first, ...others] = rows.map(({ gap_id }) => gap_id)
  assert.ok(first !== undefined)
  assert.match(await run(1, 'retry', '--id', first, 'no/gap'), /1 gap reopened/)
  await until('the request to be stored', async () => (await status('open')) === 1)
  assert.match(await run(1, 'retry', '--id', first), /is open already/)
  await using ingestion = await parts.ingest()
  await ingestion.ready()
  await until(
    'ingestion to fill ids requested before its start',
    async () => (await status('unrecoverable')) === others.length && (await status('open')) === 0,
  )
  assert.match(await run(0, 'retry'), new RegExp(`${others.length} gaps reopened`))
  await whole(async () => (await status('open')) === 0 && (await status('unrecoverable')) === 0)
  assert.match(await run(0, 'retry'), /0 gaps reopened/)
  // A filled gap is reopened only by its id, and is filled again.
  const revision = `SELECT revision FROM gaps WHERE gap_id = '${first}'`
  const before = await count(revision)
  await run(0, 'retry', '--id', first)
  await until(
    'the filled gap to be filled again',
    async () => (await count(revision)) > before + 1 && (await status('open')) === 0,
  )
  await ingestion.stop()
  await consumer.stop()
  await startTapeline(['verify'], { env: parts.env }).assertExit(0)
})
