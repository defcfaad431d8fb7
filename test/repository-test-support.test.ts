import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import pg from 'pg'
import { databaseKinds } from './support/database.ts'
import { startNativeTimescale } from './support/native-timescaledb.ts'
import { needsOf, selectTestFiles, unitFiles } from './support/test-files.ts'
import { beginTestRun, MARK } from './support/test-run.ts'
import { until } from './support/wait-for.ts'

const onLinux = process.platform === 'linux' ? {} : { skip: 'processes are found through /proc' }
const native = databaseKinds().find(({ name }) => name === 'native')

test('tests of a folder do not start a broker or database that they do not need', () => {
  const root = mkdtempSync(join(tmpdir(), 'needs-'))
  const write = (file: string, text: string) => writeFileSync(join(root, 'test', file), text)
  mkdirSync(join(root, 'test/support'), { recursive: true })
  write('support/kafka.ts', '')
  write('support/database.ts', '')
  write('support/pipeline.ts', "import { a } from './database.ts'\nimport './kafka.ts'\n")
  write('market-pure.test.ts', "import { b } from '../src/foundation/market/event.ts'\n")
  write('kafka-topics.test.ts', `const k = await ${'import'}('./support/kafka.ts')\n`)
  write('pipeline-all.test.ts', "import { c } from './support/pipeline.ts'\n")

  const files = ['test/kafka-topics.test.ts', 'test/market-pure.test.ts', 'test/pipeline-all.test.ts']
  assert.deepEqual(selectTestFiles(files, ['market']), ['test/market-pure.test.ts'])
  const long = 'test/kafka-sender-three-brokers.test.ts'
  assert.deepEqual(selectTestFiles([...files, long], []), files)
  assert.deepEqual(selectTestFiles([...files, long], ['sender']), [long])
  assert.deepEqual(needsOf(['test/market-pure.test.ts'], root), { kafka: false, database: false })
  assert.deepEqual(needsOf(['test/kafka-topics.test.ts'], root), { kafka: true, database: false })
  assert.deepEqual(needsOf(files, root), { kafka: true, database: true })

  write(
    'support/kafka.ts',
    "import { startKafkaBroker } from '../../src/sandbox/kafka-broker/kafka-broker.ts'\n",
  )
  write('processes-tree.test.ts', "import { spawn } from 'node:child_process'\n")
  write('market-simulation.test.ts', '')
  const more = [...files, 'test/processes-tree.test.ts', 'test/market-simulation.test.ts']
  assert.deepEqual(unitFiles(more, root), ['test/market-pure.test.ts'])
})

test('a run ends the processes of a killed run, but not those of a running one', onLinux, async (t) => {
  const mark = process.env[MARK]
  t.after(() => {
    process.env[MARK] = mark
  })
  const sleeper = (value: string | undefined) =>
    spawn('sleep', ['600'], { env: { PATH: process.env['PATH'], [MARK]: value }, stdio: 'ignore' })
  const abandoned = sleeper(
    JSON.stringify({ pid: process.pid, startTime: 'of an earlier process with this pid' }),
  )
  const current = sleeper(mark)
  t.after(() => current.kill('SIGKILL'))
  const ended = once(abandoned, 'exit', { signal: AbortSignal.timeout(5000) })

  const said: string[] = []
  const run = await beginTestRun((message) => said.push(message))
  await ended
  await run.end(0)

  assert.equal(abandoned.signalCode, 'SIGKILL')
  assert.match(said.join('\n'), /ended a process of an earlier run: sleep 600/)
  assert.equal(current.exitCode ?? current.signalCode, null)
})

test('a timed-out condition reports what it waited for and the last error', async () => {
  const never = until('a pong', () => Promise.reject(new Error('no route')), 60)
  await assert.rejects(never, /Waited 60 ms for a pong; last error: no route/)
})

test('committed rows of the native database survive its SIGKILL', {
  skip: native?.skip ?? false,
}, async () => {
  const cacheDir = process.env['TAPELINE_CACHE_DIR'] ?? tmpdir()
  const server = await startNativeTimescale({ cacheDir })
  assert.ok('url' in server)
  try {
    await query(server.url, 'CREATE EXTENSION timescaledb')
    await query(server.url, 'CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id')
    const before = server.pid
    await server.kill()
    await assert.rejects(query(server.url, 'SELECT 1'), { code: 'ECONNREFUSED' })
    await server.restart()
    assert.notEqual(server.pid, before)
    assert.deepEqual(await query(server.url, 'SELECT count(*)::int AS rows FROM kept'), [{ rows: 1000 }])
  } finally {
    await server.stop()
  }
})

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 5000,
    query_timeout: 10_000,
  })
  try {
    await client.connect()
    return (await client.query<Record<string, unknown>>(sql)).rows
  } finally {
    await client.end()
  }
}
