import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { murmur2 } from '@platformatic/kafka'
import { partitionOf } from '../src/foundation/kafka/partition.ts'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { latestValue } from '../src/foundation/kafka/read-range.ts'
import { initTopics } from '../src/foundation/kafka/topics.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { ensureKafkaDistribution } from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { brokers, createTestTopics, uniqueTopics } from './support/kafka.ts'
import { connectionTo } from './support/kafka-clients.ts'
import { produce } from './support/messages.ts'

const KEYS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT', 'SOLUSDT', 'A', '1000SATSUSDT', '币安人生USDT', '!source']

test("hashes like Kafka's published test vectors", () => {
  // From Kafka's UtilsTest.
  const vectors: Record<string, number> = {
    '21': -973932308,
    foobar: -790332482,
    'a-little-bit-long-string': -985981536,
    'a-little-bit-longer-string': -1486304829,
    lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8: -58897971,
    abc: 479470107,
  }
  for (const [text, hash] of Object.entries(vectors)) assert.equal(murmur2(Buffer.from(text)), hash, text)
  assert.deepEqual(
    ['BTCUSDT', 'ETHUSDT', 'BNBUSDT'].map((symbol) => partitionOf(symbol, 3)),
    [2, 2, 0],
  )
})

test("places every key like Kafka's Java client, so that a foreign producer does not split a symbol", async () => {
  const cacheDir = process.env['TAPELINE_CACHE_DIR'] ?? assert.fail('run through npm test')
  const distribution = await ensureKafkaDistribution({ cacheDir, onProgress: () => {} })
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-murmur-'))
  try {
    const source = join(folder, 'Partitions.java')
    writeFileSync(
      source,
      `import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
       public class Partitions {
         public static void main(String[] args) throws Exception {
           for (String key : args) for (int n : new int[] {1, 3, 7, 12})
             System.out.println(BuiltInPartitioner.partitionForKey(new String(java.util.Base64.getDecoder().decode(key), "UTF-8").getBytes("UTF-8"), n));
         }
       }`,
    )
    const keys = KEYS.map((key) => Buffer.from(key).toString('base64'))
    const command = ['-cp', join(distribution, 'libs', '*'), source, ...keys]
    const { stdout } = await promisify(execFile)('java', command, { timeout: 60_000 })
    assert.deepEqual(
      stdout.trim().split('\n').map(Number),
      KEYS.flatMap((key) => [1, 3, 7, 12].map((partitions) => partitionOf(key, partitions))),
    )
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('creates the topics once, reports one with other settings and leaves it unchanged', async () => {
  await using topics = uniqueTopics('init')
  const init = (extra: Record<string, string>) =>
    initTopics(loadSettings({ ...topics.env, ...extra }, { cwd: tmpdir() }))
  const states = async () => (await init({ KAFKA_RETENTION_HOURS: '48' })).map(({ state }) => state)
  assert.deepEqual(await states(), Array(6).fill('created'))
  assert.deepEqual(await states(), Array(6).fill('present'))
  const [trades, , , gaps, checkpoints] = await init({ KAFKA_RETENTION_HOURS: '24', KAFKA_PARTITIONS: '6' })
  assert.deepEqual(trades?.differences, [
    'partitions is 3, expected 6',
    'retention.ms is 172800000, expected 86400000',
  ])
  assert.deepEqual(gaps?.differences, ['partitions is 3, expected 6'])
  assert.equal(checkpoints?.state, 'differs')
  assert.deepEqual(await states(), Array(6).fill('present'), 'nothing was changed')
})

test('reports how many replicas are too many', async () => {
  const topics = uniqueTopics('replicas')
  const settings = loadSettings({ ...topics.env, KAFKA_REPLICATION_FACTOR: '3' }, { cwd: tmpdir() })
  await assert.rejects(initTopics(settings), {
    code: 'KAFKA',
    message: /fewer brokers than KAFKA_REPLICATION_FACTOR=3$/,
    fix: /^Set KAFKA_REPLICATION_FACTOR to /,
  })
})

test('names the unreachable brokers', async () => {
  const settings = loadSettings({ KAFKA_BROKERS: '127.0.0.1:1' }, { cwd: tmpdir() })
  await assert.rejects(initTopics(settings), /Topics cannot be created or checked on 127\.0\.0\.1:1/)
})

test('finds the newest value of a key, after other records and in an empty topic', async () => {
  await using topics = await createTestTopics({ prefix: 'latest' })
  const topic = topics.env.KAFKA_CHECKPOINTS_TOPIC
  const newest = (key: string) =>
    latestValue(new PartitionFetcher(connectionTo(brokers()), 'test', [topic]), topic, key)
  assert.equal(await newest('BTCUSDT'), null)
  const values = ['1', '2', '3'].map((text) => Buffer.from(text))
  await produce(topic, 'BTCUSDT', values)
  await produce(topic, 'ETHUSDT', [Buffer.from('other')])
  assert.equal(await newest('BTCUSDT'), '3')
  assert.equal(await newest('BNBUSDT'), null)
})
