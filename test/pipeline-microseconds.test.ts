import assert from 'node:assert/strict'
import { mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { readRecordings } from '../src/foundation/store/meta.ts'
import { startReplayExchange } from '../src/sandbox/simulator/replay-exchange.ts'
import { createConsumerParts } from './support/consumer-parts.ts'
import { createTestTopics } from './support/kafka.ts'
import { listen } from './support/loopback.ts'
import { readTopic } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { NO_CAPTURE, realFrames } from './support/real-capture.ts'
import { startScriptedExchange, tradeFrame } from './support/scripted-exchange.ts'
import { startConsumerProcess, startIngestionProcess, untilCaughtUp } from './support/services.ts'

const LINES = 3000

/** Digits that no rounding gives: they follow from the id, and differ between `E` and `T`. */
const digits = (id: number, name: string) =>
  String((id * 37 + (name === 'E' ? 501 : 1)) % 1000).padStart(3, '0')

/** The first lines of the real capture with their times in microseconds. */
async function convertedCapture(file: string): Promise<Map<string, string>> {
  const times = new Map<string, string>()
  const lines: string[] = []
  for await (const { line, frame } of realFrames()) {
    const { data } = frame
    const id = data.t ?? 0
    lines.push(line.replace(/"([ET])":(\d{13})/g, (_, name, ms) => `"${name}":${ms}${digits(id, name)}`))
    if (data.e === 'trade')
      times.set(`${data.s} ${data.t}`, `${data.T}${digits(id, 'T')} ${data.E}${digits(id, 'E')}`)
    if (lines.length === LINES) break
  }
  await writeFile(file, `${lines.join('\n')}\n`)
  return times
}

test('keeps every digit of microsecond times from stream and REST to the table and the export, and refuses a start in milliseconds', {
  skip: NO_CAPTURE,
}, async (context) => {
  const folder = await mkdtemp(join(tmpdir(), 'tapeline-microseconds-'))
  const file = join(folder, 'capture.ndjson')
  const times = await convertedCapture(file)
  await using parts = await createConsumerParts()
  const exchange = await startReplayExchange({ file, speed: 'max' })
  context.after(() => exchange.close())
  // These come by REST.
  exchange.faults.add({ kind: 'drop', stream: 'btcusdt@trade', probability: 0.2, count: 40 })
  const settings = {
    ...parts.env,
    BINANCE_WS_URL: exchange.wsUrl,
    BINANCE_REST_URL: exchange.restUrl,
    SYMBOLS: 'BTCUSDT,ETHUSDT',
    STREAM_TYPES: 'trade,bookTicker',
    // A replay determines the unit, whatever the setting.
    TIME_UNIT: 'millisecond',
  }
  await using consumer = await startConsumerProcess(settings)
  await using ingestion = await startIngestionProcess(settings)
  await exchange.finished
  const { timeUnit } = await ingestion.until(
    'every frame, and the dropped ones',
    ({ openGaps, counters: { queued, acknowledged } }) =>
      openGaps.length === 0 && queued === 0 && acknowledged === LINES,
  )
  assert.equal(timeUnit, 'microsecond')
  await ingestion.stop()
  await untilCaughtUp(consumer)
  await consumer.stop()

  const [recording, ...others] = await readRecordings(parts.database)
  assert.deepEqual(others, [], 'announced once')
  const { source, time_unit: unit, topics: names, symbols } = recording ?? assert.fail('nothing is announced')
  assert.match(source, /^replay:/)
  assert.deepEqual([unit, names.trades], ['microsecond', parts.topics.env.KAFKA_TRADES_TOPIC])
  assert.ok(symbols.length > 0)

  const headers = (await readTopic(parts.topics.env.KAFKA_TRADES_TOPIC)).map((one) => one.headers['schema'])
  assert.deepEqual([...new Set(headers)], ['trade/2'])
  const { rows } = await parts.database.query<{ id: string; source: string; text: string; day: string }>(
    `SELECT symbol || ' ' || trade_id AS id, source, trade_time::date::text AS day, (extract(epoch FROM trade_time) * 1000000)::bigint || ' ' ||
     coalesce(((extract(epoch FROM event_time) * 1000000)::bigint)::text, '') AS text FROM trades ORDER BY symbol, trade_id`,
  )
  const first = rows.find(({ source }) => source === 'stream')
  assert.ok(first !== undefined)
  for (const { id, source, text } of rows) {
    const [tradeTime, eventTime] = times.get(id)?.split(' ') ?? []
    assert.equal(text, source === 'stream' ? `${tradeTime} ${eventTime}` : `${tradeTime} `, id)
  }
  const backfilled = rows.filter(({ source }) => source === 'backfill').length
  assert.ok(backfilled > 0, 'REST gave some')
  assert.ok(rows.length >= times.size - 40 && rows.length > 300, `${rows.length} of ${times.size}`)

  const what = ['export', 'BTCUSDT', '--day', first.day, '--type', 'trade', '--format', 'csv', '--no-verify']
  const env = { DATABASE_URL: parts.databaseUrl }
  await startTapeline([...what, '--out', folder], { env }).assertExit(0)
  const written = await readdir(folder, { recursive: true })
  const name = written.find((one) => one.includes('.csv')) ?? ''
  const manifest = JSON.parse(
    await readFile(join(folder, written.find((one) => one.endsWith('.json')) ?? ''), 'utf8'),
  )
  assert.equal(manifest.timeUnit, 'microsecond')
  const bytes = await readFile(join(folder, name))
  const [head = '', ...lines] = (name.endsWith('.gz') ? gunzipSync(bytes) : bytes)
    .toString()
    .trimEnd()
    .split('\n')
  const columns = head.split(',')
  const [idAt, timeAt] = [columns.indexOf('trade_id'), columns.indexOf('trade_time')]
  assert.ok(lines.length > 100)
  for (const line of lines) {
    const values = line.split(',')
    const [tradeTime = ''] = times.get(`BTCUSDT ${values[idAt]}`)?.split(' ') ?? []
    assert.equal(values[timeAt]?.slice(-7, -1), tradeTime.slice(-6), line)
  }

  // The replay announces no unit now, but the setting has one.
  await using same = await scripted(exchange.source)
  await using other = await startIngestionProcess({ ...settings, ...same.env })
  await other.command.assertExit(1)
  assert.match(
    other.command.output(),
    /Set TIME_UNIT=microsecond; or use other topics.*hold times in microseconds, not in milliseconds/,
  )
})

/** An exchange with this name that sends times in milliseconds, whatever the URL requests. */
const scripted = (source: string) => startScriptedExchange((socket) => socket.send(tradeFrame(1)), source)

test('the first trade with times of the wrong unit ends ingestion with the fix, and is no dead letter', async () => {
  await using topics = await createTestTopics({ prefix: 'width' })
  await using exchange = await scripted('scripted')
  const env = { ...topics.env, ...exchange.env, TIME_UNIT: 'microsecond' }
  await using ingestion = await startIngestionProcess(env)
  await ingestion.command.assertExit(1)
  assert.match(ingestion.command.output(), /times in milliseconds, although Tapeline requested microseconds/)
  assert.match(ingestion.command.output(), /Set TIME_UNIT=millisecond/)
  assert.deepEqual(await readTopic(topics.env.KAFKA_TRADES_TOPIC), [])
  assert.deepEqual(await readTopic(topics.env.KAFKA_DEAD_LETTERS_TOPIC), [])
})

/** A REST server with this name that sends times in milliseconds, whatever the header requests. */
async function scriptedRest(source: string, context: TestContext): Promise<string> {
  const server = createServer((_, response) => {
    response.setHeader('x-tapeline-source', source)
    response.end('{"serverTime":1723161255342}')
  })
  context.after(() => server.close())
  return `http://127.0.0.1:${await listen(server)}`
}

for (const [what, source, exitCode, expected] of [
  [
    'in the other unit',
    'scripted',
    1,
    /REST sends times in milliseconds, although Tapeline requested microseconds/,
  ],
  ['of another exchange', 'other', 2, /is \\?"scripted\\?", and that at BINANCE_REST_URL=\S+ is \\?"other/],
] as const) {
  test(`T1 REST ${what} is refused before anything is written`, async (context) => {
    await using topics = await createTestTopics({ prefix: 'rest' })
    await using exchange = await scripted('scripted')
    await using ingestion = await startIngestionProcess({
      ...topics.env,
      ...exchange.env,
      BINANCE_REST_URL: await scriptedRest(source, context),
      TIME_UNIT: 'microsecond',
    })
    await ingestion.command.assertExit(exitCode, 30_000)
    assert.match(ingestion.command.output(), expected)
    assert.deepEqual(await readTopic(topics.env.KAFKA_CHECKPOINTS_TOPIC), [])
  })
}
