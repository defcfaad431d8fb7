/**
 * Runs the tests: `npm test` all but the long ones, `npm test -- consumer` the files whose name
 * contains "consumer", and `npm run test:unit` those that start no broker, database or other
 * process. Starts the servers that these files need, runs the files, and cleans up. Options
 * (`--test-…`) are passed to Node's test runner.
 *
 * With TAPELINE_TEST_ALL=1 `npm test` includes the long ones: with three brokers, PgBouncer or S3.
 * If TAPELINE_TEST_KAFKA_BROKERS or TAPELINE_TEST_DATABASE_URL is set, that server is used and none
 * is started. With TAPELINE_TEST_NATIVE=required a machine that cannot run a native TimescaleDB
 * fails instead of skipping tests. With TAPELINE_TEST_POOLER=pgbouncer tests use PgBouncer unless
 * they choose a database.
 */
import { spawn } from 'node:child_process'
import { globSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describeError } from '../src/foundation/runtime/errors.ts'
import { Closers } from '../src/foundation/telemetry/service.ts'
import { startKafkaBroker } from '../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { CACHE_DIRECTORY } from './support/bounded-run.ts'
import { DATABASE_SKIP_VARIABLE, DATABASE_VARIABLE, TEMPLATE_VARIABLE } from './support/database.ts'
import { BROKERS_VARIABLE } from './support/kafka.ts'
import { startNativeTimescale } from './support/native-timescaledb.ts'
import { type Needs, needsOf, selectTestFiles, unitFiles } from './support/test-files.ts'
import { beginTestRun, type TestRun } from './support/test-run.ts'

const ROOT = resolve(import.meta.dirname, '..')
const UNIT = '--unit'
const TEST_TIMEOUT_MS = 240_000
/** Limit for a file that never ends because of an open socket or timer. */
const RUN_TIMEOUT_MS = 75 * 60_000
/** Time for a test's processes to exit. */
const GRACE_MS = 5_000
const INTERRUPTED_GRACE_MS = 1_000

const startedMs = performance.now()

async function main(): Promise<number> {
  const names = process.argv.slice(2).filter((argument) => !argument.startsWith('-'))
  const options = process.argv.slice(2).filter((argument) => argument.startsWith('-') && argument !== UNIT)
  const all = globSync('test/**/*.test.ts', { cwd: ROOT }).sort()
  const candidates = process.argv.includes(UNIT) ? unitFiles(all, ROOT) : all
  // Every path contains the empty name.
  const isFull = process.env['TAPELINE_TEST_ALL'] === '1' && names.length === 0
  const files = selectTestFiles(candidates, isFull ? [''] : names)
  if (files.length === 0) {
    console.error(`No test file has ${names.join(' or ')} in its name`)
    return 1
  }
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      if (stop.signal.aborted) process.exit(1) // On the second signal, immediately.
      stop.abort(new Error(`stopped by ${signal}`))
    })
  }
  const run = await beginTestRun(say)
  const closers = new Closers()
  let exitCode = 1
  try {
    const stopped = new Promise<never>((_, reject) => {
      stop.signal.addEventListener('abort', () => reject(stop.signal.reason), { once: true })
    })
    await Promise.race([prepare(needsOf(files, ROOT), run, closers, stop.signal), stopped])
    say(`running ${files.length} test files`)
    exitCode = await runTests([...options, ...files], run, stop.signal)
  } catch (error) {
    console.error(`Tests were not run: ${describeError(error)}`)
  }
  const graceMs = stop.signal.aborted ? INTERRUPTED_GRACE_MS : GRACE_MS
  return (await cleanUp(closers, run, graceMs)) ? exitCode : 1
}

/** Starts the parts in parallel; if one fails, those already running are in `closers`. */
async function prepare(needs: Needs, run: TestRun, closers: Closers, signal: AbortSignal): Promise<void> {
  process.env['TAPELINE_CACHE_DIR'] = CACHE_DIRECTORY
  process.env[TEMPLATE_VARIABLE] = join(run.folder, 'embedded-template')
  // Most brokers of the tests live for less than a minute: with these they start with two thirds of the work.
  process.env['JDK_JAVA_OPTIONS'] ??= '-XX:TieredStopAtLevel=1 -XX:+UseSerialGC'
  const started = await Promise.allSettled([
    needs.kafka && !process.env[BROKERS_VARIABLE] ? prepareKafka(run, closers, signal) : undefined,
    needs.database && !process.env[DATABASE_VARIABLE] ? prepareDatabase(closers) : undefined,
  ])
  const failures = started.flatMap((part) => (part.status === 'rejected' ? [part.reason] : []))
  if (failures.length > 0) throw new AggregateError(failures)
}

async function prepareKafka(run: TestRun, closers: Closers, signal: AbortSignal): Promise<void> {
  const onProgress = stepsOf('Kafka')
  const distributionDir = await ensureKafkaDistribution({ cacheDir: CACHE_DIRECTORY, onProgress, signal })
  const dataDir = join(run.folder, 'kafka')
  const broker = await startKafkaBroker({ distributionDir, dataDir, port: 0, onProgress, signal })
  closers.add('Kafka', async () => {
    await broker.stop()
  })
  process.env[BROKERS_VARIABLE] = broker.brokers
  onProgress(`listening on ${broker.brokers}`)
}

async function prepareDatabase(closers: Closers): Promise<void> {
  const onProgress = stepsOf('TimescaleDB')
  const native = await startNativeTimescale({ cacheDir: CACHE_DIRECTORY, onProgress })
  if ('skip' in native) {
    if (process.env['TAPELINE_TEST_NATIVE'] === 'required')
      throw new Error(`No native TimescaleDB: ${native.skip}`)
    onProgress(`no native server, its tests are skipped: ${native.skip}`)
    process.env[DATABASE_SKIP_VARIABLE] = native.skip
    return
  }
  closers.add('TimescaleDB', () => native.stop())
  process.env[DATABASE_VARIABLE] = native.url
  onProgress(`listening on 127.0.0.1:${native.port}`)
}

/** @returns the exit code of Node's test runner */
function runTests(args: readonly string[], run: TestRun, stop: AbortSignal): Promise<number> {
  const runner = [
    '--test',
    // More than two cores can run: most files wait for other processes.
    '--test-concurrency=4',
    `--test-timeout=${TEST_TIMEOUT_MS}`,
    '--test-reporter=spec',
  ]
  return new Promise((done, reject) => {
    // A separate process group: Ctrl-C reaches the tests only through this process, before the
    // servers stop.
    const child = spawn(process.execPath, [...runner, ...args], {
      cwd: ROOT,
      // Files under os.tmpdir() are removed with the run, even if a test was killed.
      env: { ...process.env, TMPDIR: run.folder },
      stdio: 'inherit',
      detached: true,
    })
    const end = (signal: NodeJS.Signals) => {
      if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, signal)
    }
    const limit = setTimeout(() => {
      console.error(
        `The tests did not end within ${RUN_TIMEOUT_MS / 60_000} minutes: a file has left something open`,
      )
      end('SIGTERM')
    }, RUN_TIMEOUT_MS)
    stop.addEventListener('abort', () => end('SIGTERM'), { once: true })
    child.once('error', reject)
    child.once('exit', (code) => {
      clearTimeout(limit)
      done(code ?? 1)
    })
  })
}

/** Prints nothing without problems, so that the runner's summary stays last. */
async function cleanUp(closers: Closers, run: TestRun, graceMs: number): Promise<boolean> {
  const problems: string[] = []
  await closers.closeAll().catch((error: unknown) => problems.push(describeError(error)))
  for (const command of await run.end(graceMs))
    problems.push(`a test left a process running; ending it now: ${command}`)
  for (const problem of problems) console.error(problem)
  return problems.length === 0
}

/** Prints one line per step, without the progress after the colon. */
function stepsOf(part: string): (message: string) => void {
  let last = ''
  return (message) => {
    const step = message.replace(/: \d+ files.*/, '')
    if (step !== last) say(`${part}: ${step}`)
    last = step
  }
}

function say(message: string): void {
  console.log(`[${((performance.now() - startedMs) / 1000).toFixed(1).padStart(5)} s] ${message}`)
}

// Exit now, since an interrupted preparation may still have open handles.
process.exit(await main())
