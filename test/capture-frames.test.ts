import assert from 'node:assert/strict'
import { mkdtemp, readFile, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { type Clock, systemClock } from '../src/foundation/runtime/clock.ts'
import { type CaptureOptions, startCapture } from '../src/sandbox/capture/capture.ts'
import { CaptureWriter } from '../src/sandbox/capture/capture-writer.ts'
import { parseCaptureLine } from '../src/sandbox/simulator/replay/capture-frames.ts'
import { startReplayExchange } from '../src/sandbox/simulator/replay-exchange.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { startTapeline } from './support/processes.ts'
import { VirtualClock } from './support/virtual-clock.ts'
import { until, within } from './support/wait-for.ts'

const STREAMS = ['btcusdt@trade', 'btcusdt@aggTrade', 'btcusdt@bookTicker']

const newFolder = () => mkdtemp(join(tmpdir(), 'tapeline-capture-'))

async function simulate(context: TestContext) {
  const exchange = await startSimulatedExchange({ messagesPerSecond: 3_000, symbols: ['BTCUSDT'] })
  context.after(() => exchange.close())
  return exchange
}

async function capture(
  context: TestContext,
  options: Pick<CaptureOptions, 'file' | 'wsUrl'> & { clock?: Clock },
) {
  const problems: string[] = []
  const running = await startCapture({
    overwrite: false,
    streams: STREAMS,
    timeUnit: 'millisecond',
    backoff: { initialMs: 20, maxMs: 100 },
    clock: systemClock(),
    onProblem: (what) => problems.push(what),
    ...options,
  })
  context.after(() => running.stop())
  const has = (count: number) => until(`${count} frames`, () => running.frames() >= count, 15_000, 5)
  return { ...running, problems, has }
}

/** The captured lines with their times. */
async function linesOf(file: string) {
  const bytes = await readFile(file)
  const text = (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString()
  assert(text.endsWith('\n'), 'the last line is whole')
  return text
    .trimEnd()
    .split('\n')
    .map((line) => {
      const parsed = parseCaptureLine(line)
      assert(parsed, line)
      return parsed
    })
}

test('a replay delivers the captured frames byte for byte, in order', async (context) => {
  const folder = await newFolder()
  const [first, second] = [join(folder, 'first.ndjson.gz'), join(folder, 'second.ndjson')]
  const exchange = await simulate(context)
  const recording = await capture(context, { file: first, wsUrl: exchange.wsUrl })
  await recording.has(3_000)
  const summary = await recording.stop()
  const recorded = await linesOf(first)
  assert.equal(summary.frames, recorded.length)
  assert.equal(summary.bytes, (await stat(first)).size)
  assert.deepEqual([summary.reconnects, summary.leftOut, summary.silentStreams], [0, 0, []])
  assert.deepEqual(summary.sources, [exchange.source])
  for (const [index, { receivedNs }] of recorded.entries())
    assert(index === 0 || receivedNs > Number(recorded[index - 1]?.receivedNs), 'times rise')

  const replay = await startReplayExchange({ file: first, speed: 'max' })
  context.after(() => replay.close())
  const again = await capture(context, { file: second, wsUrl: replay.wsUrl })
  await within(15_000, 'the end of the replay', () => replay.finished)
  await again.has(recorded.length)
  assert.deepEqual((await again.stop()).sources, [replay.source])
  assert.deepEqual(
    (await linesOf(second)).map(({ frame }) => frame),
    recorded.map(({ frame }) => frame),
  )
})

test('a capture continues after a cut, and excludes frames that a replay could not serve', async (context) => {
  const file = join(await newFolder(), 'cut.ndjson.gz')
  const exchange = await simulate(context)
  const running = await capture(context, { file, wsUrl: exchange.wsUrl })
  await running.has(100)
  exchange.faults.add({ kind: 'garbage', form: 'truncated', count: 2 })
  const binary = exchange.faults.add({ kind: 'garbage', form: 'binary' })
  await until('garbage', () => binary.report().state === 'ended', 5_000)
  await running.has(running.frames() + 50)
  exchange.faults.add({ kind: 'refuse', status: 503, count: 1 })
  exchange.faults.add({ kind: 'cut' })
  await until('a refusal', () => running.problems.length === 2, 5_000)
  await running.has(running.frames() + 100)
  const summary = await running.stop()
  assert.deepEqual([summary.reconnects, summary.leftOut], [1, 3])
  assert.match(String(running.problems[1]), /HTTP 503/)
  const replay = await startReplayExchange({ file })
  await replay.close()
})

for (const status of [451, 418, 403]) {
  test(`a capture waits at least Retry-After after a refusal with ${status}, and reports it`, async (context) => {
    const file = join(await newFolder(), 'refused.ndjson')
    const exchange = await simulate(context)
    exchange.faults.add({ kind: 'refuse', status, retryAfterSeconds: 2, count: 1 })
    const clock = new VirtualClock()
    const running = await capture(context, { file, wsUrl: exchange.wsUrl, clock })
    await until('the refusal', () => running.problems.length === 1)
    await clock.advance(1999)
    assert.equal(exchange.stats().connections, 0)
    await clock.advance(1000)
    await running.has(50)
    const summary = await running.stop()
    assert.equal(running.problems.length, 1)
    assert.match(String(running.problems[0]), new RegExp(`HTTP ${status}; next attempt`))
    assert.equal(summary.reconnects, 0)
  })
}

test('overwrites an earlier capture only on request', async (context) => {
  const file = join(await newFolder(), 'there.ndjson')
  await writeFile(file, 'precious')
  const { wsUrl } = await simulate(context)
  await assert.rejects(capture(context, { file, wsUrl }), { code: 'INPUT', fix: /--force/ })
  assert.equal(await readFile(file, 'utf8'), 'precious')
})

test('a slow disk pauses the sockets instead of filling the memory', async () => {
  const file = join(await newFolder(), 'slow.ndjson.gz')
  const { promise: room, resolve: onRoom } = Promise.withResolvers<void>()
  const writer = await CaptureWriter.open(file, { overwrite: false, onRoom })
  const line = `${'x'.repeat(999)}\n`
  let lines = 1
  while (writer.write(line)) {
    lines++
    assert(lines < 10_000, 'it reports a full buffer before 10 MB wait')
  }
  await within(10_000, 'room', () => room)
  assert.equal(writer.write(line), true)
  await writer.close()
  assert.equal(gunzipSync(await readFile(file)).length, (lines + 1) * 1_000)
})

test('SIGTERM ends a capture with a complete file and a summary', async (context) => {
  const file = join(await newFolder(), 'stopped.ndjson.gz')
  const { wsUrl, source } = await simulate(context)
  await using command = startTapeline(['capture', file, '--for', '1h'], {
    env: { BINANCE_WS_URL: wsUrl, SYMBOLS: 'BTCUSDT,NOPEUSDT', STREAM_TYPES: 'trade' },
  })
  await until('some of the file', async () => (await stat(file)).size > 1_000)
  command.signal('SIGTERM')
  await command.assertExit(0, 10_000)
  const output = command.output()
  const count = (await linesOf(file)).length
  assert.match(output, new RegExp(`^${count.toLocaleString('en-US')} frames in .*, 0 reconnects$`, 'm'))
  assert.match(output, new RegExp(`source ${source}$`, 'm'))
  assert.match(output, /no frame on 1 stream: nopeusdt@trade/)
})
