import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type TestContext, test } from 'node:test'
import { WebSocketServer } from 'ws'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createTestDatabase } from './support/database.ts'
import { createTestTopics } from './support/kafka.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess, startIngestionProcess } from './support/services.ts'
import { waitFor } from './support/wait-for.ts'

const FIRST_US = 1_767_225_600_000_123
const timeUs = (id: number) => FIRST_US + id * 1000

const frame = (id: number) => {
  const fields = { e: 'blockTrade', E: timeUs(id) + 5, s: 'BTCUSDT', t: id, p: '61837.63', q: '250.5' }
  const data = { ...fields, T: timeUs(id), m: id % 2 === 0 }
  return JSON.stringify({ stream: 'btcusdt@blockTrade', data })
}

/**
 * An exchange with the block trades up to 11. A connection delivers 5, 6 and 9, and ends after a second.
 * After the first request for missing ids, connections deliver nothing.
 */
async function startExchange(context: TestContext) {
  const streams = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  streams.on('headers', (headers) => headers.push('x-tapeline-source: blocks'))
  const requests: string[] = []
  streams.on('connection', (socket, request) => {
    // Ingestion drops a connection unread if the machine stands still, so "the first one only" is not enough.
    const isDelivered = requests.some((url) => url.includes('fromId='))
    if (request.url?.includes('streams=') !== true || isDelivered) return
    for (const id of [5, 6, 9]) socket.send(frame(id))
    setTimeout(() => socket.terminate(), 1000)
  })
  const rest = createServer((request, response) => {
    response.setHeader('x-tapeline-source', 'blocks')
    const { pathname, searchParams } = new URL(request.url ?? '', 'http://rest')
    requests.push(request.url ?? '')
    const from = searchParams.get('fromId')
    if (pathname !== '/api/v3/historicalBlockTrades') {
      response.end('{"serverTime":1767225600000123}')
      return
    }
    // The exchange requires fromId.
    if (from === null) {
      response.writeHead(400).end('{"code":-1102,"msg":"Mandatory parameter fromId."}')
      return
    }
    const ids = Array.from({ length: 7 }, (_, i) => 5 + i).filter((id) => id >= Number(from))
    const same = { price: '61837.63', qty: '250.5', quoteQty: '15490326.3' }
    const rows = ids.map((id) => ({ id, ...same, time: timeUs(id), isBuyerMaker: id % 2 === 0 }))
    response.end(JSON.stringify(rows))
  })
  rest.listen(0, '127.0.0.1')
  await Promise.all([once(streams, 'listening'), once(rest, 'listening')])
  context.after(() => {
    for (const client of streams.clients) client.terminate()
    streams.close()
    rest.close()
  })
  const portOf = (server: { address(): unknown }) => (server.address() as AddressInfo).port
  return {
    requests,
    env: {
      BINANCE_WS_URL: `ws://127.0.0.1:${portOf(streams)}`,
      BINANCE_REST_URL: `http://127.0.0.1:${portOf(rest)}`,
      SYMBOLS: 'BTCUSDT',
      STREAM_TYPES: 'blockTrade',
    },
  }
}

test('block trades are stored, filled up by their ids, and found after an outage although their stream stays silent', async (context) => {
  const topics = await createTestTopics({ prefix: 'blocks' })
  context.after(() => topics.delete())
  const server = await createTestDatabase()
  context.after(() => server.drop())
  const database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  context.after(() => database.close())
  const exchange = await startExchange(context)
  const env = {
    ...topics.env,
    ...exchange.env,
    DATABASE_URL: server.url,
    FLUSH_INTERVAL_MS: '200',
    BACKOFF_INITIAL_MS: '100',
  }
  await using consumer = await startConsumerProcess(env)
  await using ingestion = await startIngestionProcess(env)
  type Row = { id: string; event_us: string | null; trade_us: string; taker_side: string; source: string }
  const stored = async () => {
    const { rows } = await database.query<Row>(
      `SELECT block_trade_id AS id, (extract(epoch FROM event_time) * 1000000)::bigint AS event_us, taker_side, source,
         (extract(epoch FROM trade_time) * 1000000)::bigint AS trade_us FROM block_trades ORDER BY block_trade_id`,
    )
    return rows
  }
  // Between the ids 6 and 9 the next frame shows the hole; after 9 only REST does.
  await waitFor(async () => (await stored()).length === 7, { timeoutMs: 120_000, what: 'all block trades' })
  assert.deepEqual(
    await stored(),
    [5, 6, 7, 8, 9, 10, 11].map((id) => {
      const isStream = [5, 6, 9].includes(id)
      return {
        id: String(id),
        event_us: isStream ? String(timeUs(id) + 5) : null,
        trade_us: String(timeUs(id)),
        taker_side: id % 2 === 0 ? 'sell' : 'buy',
        source: isStream ? 'stream' : 'backfill',
      }
    }),
  )
  await waitFor(async () => (await ingestion.status()).openGaps.length === 0, {
    timeoutMs: 20_000,
    what: 'no open gap',
  })
  assert.equal(
    exchange.requests.filter((url) => url.includes('Trades') && !url.includes('fromId=')).length,
    0,
  )
  await ingestion.stop()
  await consumer.stop()
  await using audit = startTapeline(['verify', '--exchange'], { env })
  await audit.assertExit(0, 60_000)
})
