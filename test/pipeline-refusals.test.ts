import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { afterEach, beforeEach, test } from 'node:test'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createIngestionParts, type IngestionParts } from './support/ingestion-parts.ts'
import { listen } from './support/loopback.ts'

const KEY = 'a-key-that-nobody-should-see'

let parts: IngestionParts

beforeEach(async () => {
  parts = await createIngestionParts({ messagesPerSecond: 300 })
})

afterEach(() => parts[Symbol.asyncDispose]())

for (const status of [451, 403, 418, 503]) {
  test(`B11 a handshake refused with ${status} is reported, and retried after Retry-After`, async () => {
    await using ingestion = await parts.ingest()
    await ingestion.ready()
    const attempts = async () => (await ingestion.status()).connections.map((one) => one.attempts)
    const before = await attempts()
    parts.exchange.faults.add({ kind: 'refuse', status, retryAfterSeconds: 3, count: 1 })
    parts.exchange.faults.add({ kind: 'cut' })
    const { refusals } = await ingestion.until(
      'the refusal in /status',
      (now) => now.refusals.handshakes?.status === status && now.reason.includes(`HTTP ${status}`),
    )
    assert.equal(refusals.rest?.status, status === 418 ? 418 : undefined)
    assert.match(refusals.handshakes?.retryAt ?? '', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/)
    await ingestion.ready()
    await ingestion.until('the refusals to be over', (now) => now.refusals.handshakes === null)
    assert.equal((await attempts())[0], (before[0] ?? 0) + 2, 'one was refused, and one succeeded')
    assert.equal(ingestion.command.output().match(/refuses WebSocket handshakes/g)?.length, 1)
    await ingestion.stop()
  })
}

for (const status of [418, 451, 503]) {
  test(`B11 a start with SYMBOLS=* waits while exchangeInfo is refused with ${status}, and reports it`, async () => {
    const refusal = { status, retryAfterSeconds: 4, count: 1 }
    parts.exchange.faults.add({ kind: 'restError', path: 'exchangeInfo', ...refusal })
    await using ingestion = await parts.ingest({ SYMBOLS: '*' })
    const why = `refused exchangeInfo: HTTP ${status}`
    await ingestion.until('the reason', ({ reason }) => reason.includes(why))
    await ingestion.ready()
    await ingestion.stop()
  })
}

for (const [what, refusal] of [
  ['exchangeInfo', { path: 'exchangeInfo', status: 451 }],
  ['everything', { status: 429 }],
] as const) {
  test(`B11 a list of symbols starts although REST refuses ${what} for a long time`, async () => {
    parts.exchange.faults.add({ kind: 'restError', retryAfterSeconds: 600, ...refusal })
    await using ingestion = await parts.ingest()
    await ingestion.ready()
    assert.equal((await ingestion.status()).refusals.rest?.status, refusal.status)
    await ingestion.stop()
  })
}

test('B5 no gap is filled from REST that was unreachable at the start and belongs to another exchange', async () => {
  const other = await startSimulatedExchange({ messagesPerSecond: 300, seed: 7 })
  let isAway = true
  const rest = createServer(async (request, response) => {
    if (isAway) return void response.writeHead(503).end()
    const headers = { 'x-mbx-time-unit': String(request.headers['x-mbx-time-unit']) }
    const answer = await fetch(`${other.restUrl}${request.url}`, { headers })
    response.writeHead(answer.status, { 'x-tapeline-source': other.source }).end(await answer.text())
  })
  const port = await listen(rest)
  try {
    await using ingestion = await parts.ingest({ BINANCE_REST_URL: `http://127.0.0.1:${port}` })
    await ingestion.ready()
    await ingestion.until('data', ({ counters }) => counters.forwarded > 500)
    isAway = false
    parts.exchange.faults.add({ kind: 'drop', stream: '*@trade', count: 3 })
    const { counters } = await ingestion.until('the problem of a gap', ({ openGaps }) =>
      openGaps.some(({ problem }) => problem?.includes(other.source) === true),
    )
    assert.equal(counters.backfilled, 0)
    await ingestion.stop()
  } finally {
    rest.close()
    await other.close()
  }
})

test('B7 a gap survives invalid answers, its problem is shown, and the key appears in no text', async () => {
  await using ingestion = await parts.ingest({ BINANCE_API_KEY: KEY })
  await ingestion.ready()
  await ingestion.until('data', ({ counters }) => counters.forwarded > 500)
  parts.exchange.faults.add({ kind: 'restError', path: 'historicalTrades', status: 404 })
  parts.exchange.faults.add({ kind: 'drop', stream: '*@trade', count: 30 })
  await ingestion.until('the problem of a gap', ({ openGaps }) =>
    openGaps.some(({ problem }) => problem?.startsWith('HTTP 404') === true),
  )
  parts.exchange.faults.clear()
  await ingestion.until(
    'every gap to be filled',
    ({ openGaps, counters }) => openGaps.length === 0 && counters.backfilled > 0,
  )
  const pages = await Promise.all(
    ['status', 'metrics', 'readyz'].map(async (page) => (await fetch(`${ingestion.url}/${page}`)).text()),
  )
  await ingestion.stop()
  assert.ok(![...pages, ingestion.command.output()].join('\n').includes(KEY))
})
