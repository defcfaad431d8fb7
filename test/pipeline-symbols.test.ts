import assert from 'node:assert/strict'
import { once } from 'node:events'
import { afterEach, beforeEach, test } from 'node:test'
import { WebSocket } from 'ws'
import { createIngestionParts, type IngestionParts } from './support/ingestion-parts.ts'
import { assertNoneMissing, idsByStream } from './support/messages.ts'
import { type IngestionProcess, untilGapsClosed } from './support/services.ts'
import { until } from './support/wait-for.ts'

const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT', 'NEWUSDT']

let parts: IngestionParts

beforeEach(async () => {
  parts = await createIngestionParts({ messagesPerSecond: 1200, symbols: SYMBOLS, skew: 0 })
})

afterEach(() => parts[Symbol.asyncDispose]())

const start = (symbols: string, more: Record<string, string> = {}) =>
  parts.ingest({ SYMBOLS: symbols, SYMBOLS_REFRESH_SECONDS: '1', ...more })

const events = async (ingestion: IngestionProcess, stream: string) =>
  (await ingestion.status()).streams[stream]?.events ?? -1

const untilMore = async (ingestion: IngestionProcess, stream: string, count = 20) => {
  const before = Math.max(0, await events(ingestion, stream))
  await until(`${count} more of ${stream}`, async () => (await events(ingestion, stream)) >= before + count)
}

for (const perStream of ['1', '2']) {
  test(`N1 symbols halt, resume, are listed and delisted under *, without a reconnect, ${perStream} per stream`, async () => {
    const listing = parts.exchange.faults.add({ kind: 'delist', symbol: 'NEWUSDT' })
    // A symbol that first trades after the start of ingestion would count as listed.
    await until('a trade of BNBUSDT', async () => {
      const trades = await fetch(`${parts.exchange.restUrl}/api/v3/trades?symbol=BNBUSDT&limit=1`)
      return ((await trades.json()) as unknown[]).length > 0
    })
    const atStart = parts.exchange.faults.add({ kind: 'halt', symbol: 'BNBUSDT' })
    await using ingestion = await start('*', { CONNECTIONS_PER_STREAM: perStream })
    await ingestion.ready()
    assert.equal(await events(ingestion, 'bnbusdt@trade'), -1)
    assert.match(ingestion.command.output(), /left out, halted: BNBUSDT/)
    const metrics = await (await fetch(`${ingestion.url}/metrics`)).text()
    assert.match(metrics, /tapeline_ingestion_symbols_left_out\{reason="halted"\} 1/)
    assert.match(metrics, /tapeline_ingestion_symbols\{state="trading"\} 2/)

    atStart.end()
    await untilMore(ingestion, 'bnbusdt@trade')

    // It has traded for a while when ingestion discovers it.
    const unread = parts.exchange.faults.add({ kind: 'restError', status: 503 })
    parts.exchange.faults.add({ kind: 'list', symbol: 'NEWUSDT' })
    const socket = new WebSocket(`${parts.exchange.wsUrl}/ws/newusdt@trade`)
    await once(socket, 'message', { signal: AbortSignal.timeout(20_000) })
    socket.close()
    unread.end()
    assert.equal(listing.report().state, 'ended')
    await untilMore(ingestion, 'newusdt@trade')

    const halt = parts.exchange.faults.add({ kind: 'halt', symbol: 'ETHUSDT' })
    await ingestion.command.waitForLine(/Symbols stopped trading: ETHUSDT/)
    halt.end()
    await untilMore(ingestion, 'ethusdt@trade')

    parts.exchange.faults.add({ kind: 'delist', symbol: 'BTCUSDT' })
    await until('the streams to be removed', async () => (await events(ingestion, 'btcusdt@trade')) === -1)
    await untilMore(ingestion, 'newusdt@aggTrade')
    await untilGapsClosed(ingestion)
    const { connections, counters } = await ingestion.status()
    assert.deepEqual(
      connections.map(({ attempts, streams }) => [attempts, streams]),
      Array.from({ length: Number(perStream) }, () => [1, 9]),
    )
    assert.equal(parts.exchange.connections()[0]?.streams, 9)
    assert.equal(counters.rejected, 0)
    await ingestion.stop()

    const rows = await parts.ledger()
    assert.deepEqual(new Set(rows.map(({ symbol }) => symbol)), new Set(['NEWUSDT']))
    assert.deepEqual(
      rows
        .map(({ event_type, status, from_id, cause }) => [event_type, status, from_id, cause].join())
        .sort(),
      ['aggTrade,filled,0,listed', 'aggTrade,open,0,listed', 'trade,filled,0,listed', 'trade,open,0,listed'],
    )
    const ids = await idsByStream(parts.topics.env.KAFKA_TRADES_TOPIC)
    for (const symbol of SYMBOLS) {
      const [first] = assertNoneMissing(ids.get(`${symbol} trade`), symbol)
      if (symbol === 'NEWUSDT') assert.equal(first, 0)
    }
  })
}

test('N5 if all symbols are in BREAK, ingestion waits, reports why, and records when they resume', async () => {
  const halts = SYMBOLS.map((symbol) => parts.exchange.faults.add({ kind: 'halt', symbol }))
  await using ingestion = await start('*')
  const waiting = await ingestion.until('the reason', ({ reason }) => reason.includes('no symbol is trading'))
  assert.deepEqual(waiting.connections, [])
  for (const halt of halts) halt.end()
  await ingestion.ready()
  await untilMore(ingestion, 'newusdt@trade')
  await ingestion.stop()
})

test('N2 a delisted symbol that checkpoints know is an error, and the others run; an unknown name is refused', async () => {
  await using first = await start('BTCUSDT,ETHUSDT')
  await first.ready()
  await untilMore(first, 'btcusdt@trade')
  await first.stop()
  const delisting = parts.exchange.faults.add({ kind: 'delist', symbol: 'BTCUSDT' })
  await using refused = await start('BTCUSDT,ETHUSDT,NOPEUSDT')
  assert.notEqual((await refused.command.exit()).code, 0)
  assert.match(refused.command.output(), /Not spot symbols of .*: NOPEUSDT/)
  await using second = await start('BTCUSDT,ETHUSDT')
  await second.ready()
  await untilMore(second, 'ethusdt@trade')
  assert.match(second.command.output(), /left out, delisted: BTCUSDT/)
  assert.equal(await events(second, 'btcusdt@trade'), -1)
  // It is listed again, and the missed trades are backfilled.
  delisting.end()
  await untilMore(second, 'btcusdt@trade')
  await untilGapsClosed(second)
  await second.stop()
  const ids = await idsByStream(parts.topics.env.KAFKA_TRADES_TOPIC)
  assertNoneMissing(ids.get('BTCUSDT trade'), 'BTCUSDT')
})

test('N1 a failed exchangeInfo changes nothing, and is a warning', async () => {
  await using ingestion = await start('*')
  await ingestion.ready()
  parts.exchange.faults.add({ kind: 'restError', path: 'exchangeInfo', status: 500 })
  await ingestion.command.waitForLine(/Loading the symbols of the exchange failed/)
  await untilMore(ingestion, 'btcusdt@trade', 200)
  assert.equal((await ingestion.status()).connections[0]?.streams, 12)
  parts.exchange.faults.clear()
  await ingestion.command.waitForLine(/Loading the symbols of the exchange succeeded again/)
  await ingestion.stop()
})
