import assert from 'node:assert/strict'
import { createReadStream, existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { createGunzip } from 'node:zlib'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createTestDatabase, databaseKinds } from './support/database.ts'
import { createTestTopics } from './support/kafka.ts'
import { startTapeline } from './support/processes.ts'
import { startConsumerProcess, startIngestionProcess } from './support/services.ts'
import { waitFor } from './support/wait-for.ts'

const CAPTURE = resolve(
  import.meta.dirname,
  '../../shared/data/binance/spot-btc-eth-2024-08-09-midnight-60s.recvns.ndjson.gz',
)
const missing = existsSync(CAPTURE) ? undefined : 'the captured frames are not next to this checkout'

/** The capture's events by identity, with the original decimals. */
async function wire() {
  const trades = new Map<string, string>()
  const quotes = new Map<string, string>()
  for await (const line of createInterface({ input: createReadStream(CAPTURE).pipe(createGunzip()) })) {
    const { stream, data } = JSON.parse(line.slice(line.indexOf(' ') + 1))
    if (stream.endsWith('@trade'))
      trades.set(`${data.s} ${data.t}`, `${data.p} ${data.q} ${data.T} ${data.E} ${data.m}`)
    else quotes.set(`${data.s} ${data.u}`, `${data.b} ${data.B} ${data.a} ${data.A}`)
  }
  return { trades, quotes }
}

for (const { name, skip } of databaseKinds()) {
  const reason = missing ?? skip
  test(
    `stores every event of a real capture once, with exact digits, in the ${name} database, and no trade twice in a second replay`,
    reason === undefined ? {} : { skip: reason },
    async () => {
      const topics = await createTestTopics({ prefix: 'replay' })
      const server = await createTestDatabase(name)
      const database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
      const settings = {
        ...topics.env,
        DATABASE_URL: server.url,
        SYMBOLS: 'BTCUSDT,ETHUSDT',
        FLUSH_INTERVAL_MS: '500',
      }
      const storedMessages = async () => {
        const { rows } = await database.query<{ n: number }>(
          'SELECT sum(next_offset)::int AS n FROM consumer_offsets',
        )
        return rows[0]?.n ?? 0
      }
      const replayOnce = async () => {
        await using exchange = startTapeline(['replay', CAPTURE, '--speed', 'max', '--port', '0'])
        const [, wsUrl = ''] = await exchange.waitForLine(/BINANCE_WS_URL=(\S+)/)
        const [, restUrl = ''] = await exchange.waitForLine(/BINANCE_REST_URL=(\S+)/)
        const urls = { BINANCE_WS_URL: wsUrl, BINANCE_REST_URL: restUrl }
        await using ingestion = await startIngestionProcess({ ...settings, ...urls })
        await waitFor(async () => (await ingestion.status()).counters.received === 14_273, {
          timeoutMs: 60_000,
          what: 'every frame',
        })
        const { counters } = await ingestion.status()
        await ingestion.stop()
        return counters
      }
      try {
        await using consumer = await startConsumerProcess(settings)
        await consumer.ready()
        const first = await replayOnce()
        assert.deepEqual([first.forwarded, first.duplicate, first.rejected], [14_273, 0, 0])
        await waitFor(async () => (await storedMessages()) >= 14_273, {
          timeoutMs: 60_000,
          what: 'every row',
        })

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

        const audit = startTapeline(['verify'], { env: { DATABASE_URL: server.url } })
        await audit.assertExit(0)
        assert.match(audit.output(), /no duplicates, no mismatches/)

        const second = await replayOnce()
        assert.ok(second.duplicate >= 2800, 'ingestion remembers the trades')
        await consumer.stop()
        assert.equal((await database.query('SELECT 1 FROM trades')).rowCount, 2800)

        // The second replay looks like an exchange with restarted update ids, and the ledger says
        // so: its quotes are no duplicates.
        const repeated = startTapeline(['verify'], { env: { DATABASE_URL: server.url } })
        await repeated.assertExit(0)
        assert.match(repeated.output(), /BTCUSDT bookTicker: 1 outage in the ledger.*\n.*\(reset\)/)
        assert.match(repeated.output(), /no duplicates, no mismatches/)
      } finally {
        await database.close()
        await server.drop()
        await topics.delete()
      }
    },
  )
}
