import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createConsumerParts } from './support/consumer-parts.ts'
import { startTapeline } from './support/processes.ts'
import { NO_CAPTURE, REAL_CAPTURE, realFrames } from './support/real-capture.ts'
import { startConsumerProcess, startIngestionProcess } from './support/services.ts'

/** The capture's events by identity, with the original decimals. */
async function wire() {
  const trades = new Map<string, string>()
  const quotes = new Map<string, string>()
  for await (const { frame } of realFrames()) {
    const { stream, data } = frame
    if (stream.endsWith('@trade'))
      trades.set(`${data.s} ${data.t}`, `${data.p} ${data.q} ${data.T} ${data.E} ${data.m}`)
    else quotes.set(`${data.s} ${data.u}`, `${data.b} ${data.B} ${data.a} ${data.A}`)
  }
  return { trades, quotes }
}

test('stores every event of a real capture once, with exact digits, and no trade twice in a second replay', {
  skip: NO_CAPTURE,
}, async () => {
  await using parts = await createConsumerParts()
  const { database } = parts
  const settings = { ...parts.env, SYMBOLS: 'BTCUSDT,ETHUSDT' }
  const replayOnce = async () => {
    await using exchange = startTapeline(['replay', REAL_CAPTURE, '--speed', 'max', '--port', '0'])
    const [, wsUrl = ''] = await exchange.waitForLine(/BINANCE_WS_URL=(\S+)/)
    const [, restUrl = ''] = await exchange.waitForLine(/BINANCE_REST_URL=(\S+)/)
    const urls = { BINANCE_WS_URL: wsUrl, BINANCE_REST_URL: restUrl }
    await using ingestion = await startIngestionProcess({ ...settings, ...urls })
    const { counters } = await ingestion.until('every frame', (status) => status.counters.received === 14_273)
    await ingestion.stop()
    return counters
  }
  await using consumer = await startConsumerProcess(settings)
  await consumer.ready()
  const first = await replayOnce()
  assert.deepEqual([first.forwarded, first.duplicate, first.rejected], [14_273, 0, 0])
  // The topic of gaps has the announcement of ingestion.
  await parts.untilRows(
    `SELECT sum(next_offset) FROM consumer_offsets WHERE topic <> '${parts.topics.env.KAFKA_GAPS_TOPIC}'`,
    14_273,
  )

  const { trades, quotes } = await wire()
  assert.deepEqual([trades.size, quotes.size], [2800, 11_473])
  const stored = await database.query<{ id: string; text: string }>(
    `SELECT symbol || ' ' || trade_id AS id, price || ' ' || quantity || ' ' || (extract(epoch FROM trade_time) * 1000)::bigint
         || ' ' || (extract(epoch FROM event_time) * 1000)::bigint || ' ' || is_buyer_maker AS text FROM raw_trades`,
  )
  assert.equal(stored.rowCount, 2800)
  for (const { id, text } of stored.rows) assert.equal(text, trades.get(id), id)
  const storedQuotes = await database.query<{ id: string; text: string }>(
    `SELECT symbol || ' ' || update_id AS id, concat_ws(' ', bid_price, bid_quantity, ask_price, ask_quantity) AS text FROM book_ticker`,
  )
  assert.equal(storedQuotes.rowCount, 11_473)
  for (const { id, text } of storedQuotes.rows) assert.equal(text, quotes.get(id), id)
  const chunks = await database.query(
    "SELECT 1 FROM timescaledb_information.chunks WHERE hypertable_name = 'trades'",
  )
  assert.equal(chunks.rowCount, 2, 'one daily chunk on each side of midnight')

  const audit = startTapeline(['verify'], { env: parts.env })
  await audit.assertExit(0)
  assert.match(audit.output(), /no duplicates, no mismatches/)

  const second = await replayOnce()
  assert.ok(second.duplicate >= 2800, 'ingestion remembers the trades')
  await consumer.stop()
  assert.equal((await database.query('SELECT 1 FROM trades')).rowCount, 2800)

  // The second replay looks like an exchange with restarted update ids, and the ledger says
  // so: its quotes are no duplicates.
  const repeated = startTapeline(['verify'], { env: parts.env })
  await repeated.assertExit(0)
  assert.match(repeated.output(), /BTCUSDT bookTicker: 1 outage in the ledger.*\n.*\(reset\)/)
  assert.match(repeated.output(), /no duplicates, no mismatches/)
})
