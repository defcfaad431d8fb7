import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { fetchSymbols, thatTrade } from '../src/foundation/binance/rest.ts'
import { type RestOutcome, tradeRest } from '../src/foundation/binance/trade-rest.ts'
import { FetchedMessage } from '../src/foundation/kafka/codec/fetched-message.ts'
import { Decoder } from '../src/foundation/kafka/message-decoder.ts'
import type { Gap } from '../src/foundation/market/gap.ts'
import { GapLedger } from '../src/ingestion/continuity/gap-ledger.ts'

const NOW_MS = Date.UTC(2026, 0, 1)
const NEVER = new AbortController().signal
const LATEST = { type: 'aggTrade', symbol: 'BTCUSDT', fromId: null, limit: 1 } as const

/** A REST interface that answers as told, while `use` runs. */
async function served(
  answer: (response: ServerResponse) => void,
  use: (restUrl: string) => Promise<void>,
): Promise<void> {
  const server = createServer((_request, response) => answer(response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  try {
    await use(`http://127.0.0.1:${port}`)
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

async function outcome(
  status: number,
  headers: Readonly<Record<string, string>> = {},
  body = '{"code":-1003,"msg":"Too much."}',
): Promise<RestOutcome> {
  let found: RestOutcome | undefined
  await served(
    (response) => response.writeHead(status, headers).end(body),
    async (url) => {
      found = await tradeRest(url, () => NOW_MS)(LATEST, NEVER)
    },
  )
  assert(found)
  return found
}

async function waitMs(status: number, retryAfter: string | null): Promise<number | null> {
  const found = await outcome(status, retryAfter === null ? {} : { 'retry-after': retryAfter })
  return found.kind === 'wait' ? found.waitMs : null
}

test('B5 waits as long as Retry-After says, in seconds or until a date', async () => {
  assert.equal(await waitMs(429, '7'), 7000)
  assert.equal(await waitMs(418, '259200'), 259_200_000)
  assert.equal(await waitMs(429, new Date(NOW_MS + 90_000).toUTCString()), 90_000)
})

test('B5 never takes a Retry-After that says nothing for leave to ask at once', async () => {
  for (const nothing of [null, '', '0', '-5', 'soon', '1e9', new Date(NOW_MS - 1000).toUTCString()]) {
    assert.equal(await waitMs(429, nothing), 60_000, `429, ${nothing}`)
    assert.equal(await waitMs(418, nothing), 120_000, `418, ${nothing}`)
    assert.equal(await waitMs(403, nothing), 300_000, `403, ${nothing}`)
  }
  assert.equal(await waitMs(418, '999999999999'), 259_200_000, 'the longest ban is three days')
})

test('B6 reads what the IP has used from refusals and errors too', async () => {
  for (const status of [429, 418, 451, 400, 500]) {
    const { usedWeight } = await outcome(status, { 'x-mbx-used-weight-1m': '5999' })
    assert.equal(usedWeight, 5999, `HTTP ${status}`)
  }
  assert.equal((await outcome(500)).usedWeight, null)
})

test('B7 tells what would be answered the same again from what may pass, with the words of the exchange', async () => {
  assert.deepEqual(await outcome(400, {}, '{"code":-1121,"msg":"Invalid symbol."}'), {
    kind: 'rejected',
    reason: 'HTTP 400: Invalid symbol. (-1121)',
    usedWeight: null,
  })
  assert.deepEqual(await outcome(401, {}, '{"code":-2014,"msg":"API-key\\nformat invalid."}'), {
    kind: 'rejected',
    reason: 'HTTP 401: API-key format invalid. (-2014)',
    usedWeight: null,
  })
  const page = await outcome(404, {}, '<html>Not Found</html>')
  assert.deepEqual(page, { kind: 'rejected', reason: 'HTTP 404', usedWeight: null })
  for (const status of [408, 500, 502, 503, 504]) {
    assert.deepEqual(await outcome(status), { kind: 'failed', reason: `HTTP ${status}`, usedWeight: null })
  }
  assert.equal((await outcome(451)).kind, 'refused')
  assert.equal((await outcome(200, {}, '<html>')).kind, 'failed', 'no JSON')
})

test('B7 every message of the exchange becomes a reason that the ledger takes, with its code', async () => {
  for (const msg of [
    'x'.repeat(500),
    `${'x'.repeat(183)}😀 and more`,
    'nul \0 in it',
    'half \ud83d of it',
    '\u001b[2J',
    '',
  ]) {
    const found = await outcome(400, {}, JSON.stringify({ code: -1000, msg }))
    assert.ok(found.kind === 'rejected')
    assert.match(found.reason, /^HTTP 400:.* \(-1000\)$/)
    const rows: Gap[] = []
    const ledger = new GapLedger(
      (row) => rows.push(row),
      () => {},
      () => NOW_MS,
    )
    const sequence = { symbol: 'BTCUSDT', eventType: 'trade', epoch: 0 } as const
    const gap = ledger.open(sequence, { from: 5, to: 14 }, 'reconnect', { fromMs: null, toMs: null })
    ledger.unrecoverable(gap, { from: 5, to: 14 }, found.reason)
    for (const row of rows) {
      const message = new FetchedMessage(0, null, [], Buffer.from(JSON.stringify(row)))
      assert.equal(new Decoder().decode('gaps', message), null, found.reason)
    }
    assert.equal(rows.length, 2)
  }
})

test('B10 closes the socket of a request that is broken off', { timeout: 10_000 }, async () => {
  const closed = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const stop = new AbortController()
  await served(
    (response) => {
      response.on('close', closed.resolve)
      asked.resolve()
    },
    async (url) => {
      const answer = tradeRest(url, () => NOW_MS)(LATEST, stop.signal)
      await asked.promise
      stop.abort(new Error('stopping'))
      await closed.promise
      assert.equal((await answer).kind, 'failed')
    },
  )
})

test('a halted symbol is known to the exchange, and not among those that trade', async () => {
  const symbols = [
    { symbol: 'ETHUSDT', status: 'TRADING', isSpotTradingAllowed: true },
    { symbol: 'BTCUSDT', status: 'TRADING' },
    { symbol: 'LUNAUSDT', status: 'BREAK', isSpotTradingAllowed: true },
    { symbol: 'FUTURE', status: 'TRADING', isSpotTradingAllowed: false },
  ]
  await served(
    (response) => response.end(JSON.stringify({ symbols })),
    async (url) => {
      const statuses = await fetchSymbols(url)
      assert.deepEqual(Object.fromEntries(statuses), {
        ETHUSDT: 'TRADING',
        BTCUSDT: 'TRADING',
        LUNAUSDT: 'BREAK',
        FUTURE: 'NOT_SPOT',
      })
      assert.deepEqual(thatTrade(statuses), ['BTCUSDT', 'ETHUSDT'])
    },
  )
})
