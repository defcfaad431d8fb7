import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { createConsumerParts } from './support/consumer-parts.ts'
import { closeServer, listen } from './support/loopback.ts'
import { startTapeline } from './support/processes.ts'
import { startScriptedExchange } from './support/scripted-exchange.ts'
import { startConsumerProcess, startIngestionProcess, untilGapsClosed } from './support/services.ts'
import { until } from './support/wait-for.ts'

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
async function startExchange() {
  const requests: string[] = []
  const streams = await startScriptedExchange((socket) => {
    // Ingestion drops a connection unread if the machine stands still, so "the first one only" is not enough.
    if (requests.some((url) => url.includes('fromId='))) return
    for (const id of [5, 6, 9]) socket.send(frame(id))
    setTimeout(() => socket.terminate(), 1000)
  }, 'blocks')
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
  const urls = { BINANCE_WS_URL: streams.wsUrl, BINANCE_REST_URL: `http://127.0.0.1:${await listen(rest)}` }
  return {
    requests,
    env: { ...urls, SYMBOLS: 'BTCUSDT', STREAM_TYPES: 'blockTrade' },
    async [Symbol.asyncDispose]() {
      await streams[Symbol.asyncDispose]()
      await closeServer(rest)
    },
  }
}

test('block trades are stored, filled up by their ids, and found after an outage although their stream stays silent', async () => {
  await using parts = await createConsumerParts()
  await using exchange = await startExchange()
  const env = { ...parts.env, ...exchange.env }
  await using consumer = await startConsumerProcess(env)
  await using ingestion = await startIngestionProcess(env)
  type Row = { id: string; event_us: string | null; trade_us: string; taker_side: string; source: string }
  const stored = async () => {
    const { rows } = await parts.database.query<Row>(
      `SELECT block_trade_id AS id, (extract(epoch FROM event_time) * 1000000)::bigint AS event_us, taker_side, source,
         (extract(epoch FROM trade_time) * 1000000)::bigint AS trade_us FROM block_trades ORDER BY block_trade_id`,
    )
    return rows
  }
  // Between the ids 6 and 9 the next frame shows the hole; after 9 only REST does.
  await until('all block trades', async () => (await stored()).length === 7, 120_000)
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
  await untilGapsClosed(ingestion)
  assert.ok(exchange.requests.every((url) => !url.includes('Trades') || url.includes('fromId=')))
  await ingestion.stop()
  await consumer.stop()
  await using audit = startTapeline(['verify', '--exchange'], { env })
  await audit.assertExit(0, 60_000)
})
