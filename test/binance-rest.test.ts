import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import { refusalOf, refusalWaitMs, ruleOf } from '../src/foundation/binance/refusal.ts'
import { fetchSymbols, thatTrade } from '../src/foundation/binance/rest.ts'
import { type RestOutcome, tradeRest } from '../src/foundation/binance/trade-rest.ts'
import { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { Decoder } from '../src/foundation/kafka/message-decoder.ts'
import type { TimeUnit } from '../src/foundation/market/time-unit.ts'
import { ledgerAlone } from './support/ledger-alone.ts'

const NOW_MS = Date.UTC(2026, 0, 1)
const NEVER = new AbortController().signal
const LATEST = { type: 'aggTrade', symbol: 'BTCUSDT', fromId: null, limit: 1 } as const

/** Runs `use` with a REST server that gives these answers. */
async function served<Result>(
  answer: (response: ServerResponse) => void,
  use: (restUrl: string) => Promise<Result>,
): Promise<Result> {
  const server = createServer((_request, response) => answer(response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  try {
    return await use(`http://127.0.0.1:${port}`)
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

const restOf = (url: string, unit: TimeUnit = 'millisecond', key?: string) =>
  tradeRest(url, unit, () => NOW_MS, key)

const symbolsFrom = (answer: string) => served((response) => response.end(answer), fetchSymbols)

function outcome(
  status: number,
  headers: Readonly<Record<string, string>> = {},
  body = '{"code":-1003,"msg":"Too much."}',
): Promise<RestOutcome> {
  return served(
    (response) => response.writeHead(status, headers).end(body),
    (url) => restOf(url)(LATEST, NEVER),
  )
}

async function waitMs(status: number, retryAfter: string | null): Promise<number | null> {
  const found = await outcome(status, retryAfter === null ? {} : { 'retry-after': retryAfter })
  return found.kind === 'refused' ? refusalWaitMs(found.refusal, 1, 0) : null
}

test('B5 waits for Retry-After, in seconds or until a date', async () => {
  assert.equal(await waitMs(429, '70'), 70_000)
  assert.equal(await waitMs(418, '259200'), 259_200_000)
  assert.equal(await waitMs(503, '300'), 300_000)
  assert.equal(await waitMs(429, new Date(NOW_MS + 90_000).toUTCString()), 90_000)
})

test('B5 an unparsable Retry-After does not cause an immediate retry', async () => {
  for (const nothing of [null, '', '0', '-5', 'soon', '1e9', new Date(NOW_MS - 1000).toUTCString()]) {
    assert.equal(await waitMs(429, nothing), 60_000, `429, ${nothing}`)
    assert.equal(await waitMs(418, nothing), 120_000, `418, ${nothing}`)
    assert.equal(await waitMs(403, nothing), 10_000, `403, ${nothing}`)
    assert.equal(await waitMs(451, nothing), 5000, `451, ${nothing}`)
  }
  assert.equal(await waitMs(418, '999999999999'), 259_200_000, 'the longest ban is three days')
})

test('B5 waits longer with each consecutive refusal, up to the limit of its status', () => {
  const longest = { 403: 300_000, 418: 600_000, 429: 60_000, 451: 600_000 }
  for (const [status, longestMs] of Object.entries(longest)) {
    const refusal = refusalOf(Number(status), null, '', NOW_MS)
    const waits = [1, 2, 3, 4, 12].map((times) => refusalWaitMs(refusal, times, 0.99))
    assert.deepEqual(
      waits,
      waits.toSorted((one, other) => one - other),
    )
    assert.ok(Math.max(...waits) <= longestMs && Math.max(...waits) > 0.9 * longestMs, `${status}: ${waits}`)
  }
})

test('reads rows without the flag that is not stored', async () => {
  const row = { a: 7, p: '1', q: '1', f: 7, l: 7, T: 1723161255342, m: true }
  const found = await served(
    (response) => response.end(JSON.stringify([row])),
    (url) => restOf(url)(LATEST, NEVER),
  )
  assert.deepEqual(found.kind === 'rows' && found.rows.map(({ id, isBestMatch }) => [id, isBestMatch]), [
    [7, false],
  ])
})

test('returns exact times, and rejects rows in another time unit than requested', async () => {
  const row = { a: 7, p: '1', q: '1', f: 7, l: 7, T: 1723161255342123, m: true, M: true }
  const ask = async (unit: TimeUnit, T: number) => {
    const found = await served(
      (response) => {
        assert.equal(response.req.headers['x-mbx-time-unit'], unit.toUpperCase())
        response.end(JSON.stringify([{ ...row, T }]))
      },
      (url) => restOf(url, unit)(LATEST, NEVER),
    )
    if (found.kind === 'rows') return found.rows.map(({ timeUs }) => timeUs)
    return found.kind === 'failed' ? found.reason : found.kind
  }
  assert.deepEqual(await ask('microsecond', row.T), [row.T])
  assert.deepEqual(await ask('millisecond', 1723161255342), [1723161255342000])
  const other = (unit: TimeUnit) => new RegExp(`times in ${unit}s.*TIME_UNIT=${unit}`)
  assert.match(String(await ask('microsecond', 1723161255342)), other('millisecond'))
  assert.match(String(await ask('millisecond', row.T)), other('microsecond'))
  assert.match(String(await ask('millisecond', 5)), /5 is no time/)
})

test('B6 reads the used weight of the IP address from refusals and errors too', async () => {
  for (const status of [429, 418, 451, 400, 500]) {
    const { usedWeight } = await outcome(status, { 'x-mbx-used-weight-1m': '5999' })
    assert.equal(usedWeight, 5999, `HTTP ${status}`)
  }
  assert.equal((await outcome(500)).usedWeight, null)
})

test("B7 separates permanent from temporary errors, and gives the fix and the exchange's message", async () => {
  const seen = async (status: number, body: string) => {
    const found = await outcome(status, {}, body)
    assert.ok(found.kind === 'refused')
    const { isFinal, stops, fix } = ruleOf(found.refusal)
    return [found.refusal.reason, isFinal === true, stops, /BINANCE_API_KEY/.test(fix)]
  }
  const delisted = await seen(400, '{"code":-1121,"msg":"Invalid symbol."}')
  assert.deepEqual(delisted, ['HTTP 400: Invalid symbol. (-1121)', true, 'request', false])
  const keyless = await seen(401, '{"code":-2014,"msg":"API-key\\nformat invalid."}')
  assert.deepEqual(keyless, ['HTTP 401: API-key format invalid. (-2014)', false, 'request', true])
  assert.deepEqual((await seen(401, '{"code":-2015,"msg":"Invalid API-key."}')).at(-1), true)
  for (const status of [418, 503]) assert.equal((await seen(status, '{"code":-1121,"msg":""}'))[1], false)
  for (const status of [400, 404, 405, 408, 413, 500, 502, 503, 504])
    assert.deepEqual(await seen(status, '<html>'), [`HTTP ${status}`, false, 'request', false])
  for (const status of [403, 418, 429, 451]) {
    const stops = status === 418 ? 'both' : 'side'
    assert.deepEqual(await seen(status, ''), [`HTTP ${status}`, false, stops, false])
  }
  assert.equal((await outcome(200, {}, '<html>')).kind, 'failed', 'no JSON')
})

test('abandons an endless response after 64 MiB', async () => {
  const blanks = Buffer.alloc(1 << 20, ' ')
  let sent = 0
  const more = (response: ServerResponse) => {
    while (!response.destroyed) {
      sent++
      if (!response.write(blanks)) return response.once('drain', () => more(response))
    }
    return undefined
  }
  await served(more, async (url) => {
    const found = await restOf(url)(LATEST, NEVER)
    assert.deepEqual(found, { kind: 'failed', reason: 'The answer has more than 64 MiB' })
  })
  assert.ok(sent < 128, `${sent} MiB`)
})

test('sends the API key only for trades by id, and to no host of a redirect', async () => {
  const keys: Array<string | undefined> = []
  await served(
    (response) => {
      keys.push(response.req.headers['x-mbx-apikey']?.toString())
      response.writeHead(302, { location: '/elsewhere' }).end()
    },
    async (url) => {
      const ask = restOf(url, 'millisecond', 'the-key')
      const trades = { ...LATEST, type: 'trade' } as const
      const found = await ask(trades, NEVER)
      assert.ok(found.kind === 'refused' && found.refusal.status === 302)
      assert.deepEqual(keys, ['the-key'])
      await ask(LATEST, NEVER)
      assert.ok(keys.slice(1).every((key) => key === undefined))
      await restOf(url)(trades, NEVER)
      assert.ok(keys.slice(1).every((key) => key === undefined))
    },
  )
})

test('B7 turns every message of the exchange into a valid reason for the ledger, with its code', async () => {
  const long = ['x'.repeat(500), `${'x'.repeat(183)}😀 and more`]
  for (const msg of [...long, 'nul \0 in it', 'half \ud83d of it', '\u001b[2J', '']) {
    const found = await outcome(400, {}, JSON.stringify({ code: -1000, msg }))
    assert.ok(found.kind === 'refused')
    const { reason } = found.refusal
    assert.match(reason, /^HTTP 400:.* \(-1000\)$/)
    const { ledger, rows } = ledgerAlone(NOW_MS)
    const sequence = { symbol: 'BTCUSDT', event_type: 'trade', epoch: 0 } as const
    const gap = ledger.open(sequence, { from: 5, to: 14 }, 'reconnect', { fromMs: null, toMs: null })
    ledger.unrecoverable(gap, { from: 5, to: 14 }, reason)
    for (const row of rows) {
      const message = new FetchedMessage(0, null, [], Buffer.from(JSON.stringify(row)))
      assert.equal(new Decoder().decode('gaps', message), null, reason)
    }
    assert.equal(rows.length, 2)
  }
})

test('B10 closes the socket of an aborted request', { timeout: 10_000 }, async () => {
  const closed = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const stop = new AbortController()
  await served(
    (response) => {
      response.on('close', closed.resolve)
      asked.resolve()
    },
    async (url) => {
      const answer = restOf(url)(LATEST, stop.signal)
      await asked.promise
      stop.abort(new Error('stopping'))
      await closed.promise
      assert.equal((await answer).kind, 'failed')
    },
  )
})

test('lists a halted symbol as known but not trading', async () => {
  const symbols = [
    { symbol: 'ETHUSDT', status: 'TRADING', isSpotTradingAllowed: true },
    { symbol: 'BTCUSDT', status: 'TRADING' },
    { symbol: 'LUNAUSDT', status: 'BREAK', isSpotTradingAllowed: true },
    { symbol: 'FUTURE', status: 'TRADING', isSpotTradingAllowed: false },
  ]
  const statuses = await symbolsFrom(JSON.stringify({ symbols }))
  assert.deepEqual(Object.fromEntries(statuses), {
    ETHUSDT: 'TRADING',
    BTCUSDT: 'TRADING',
    LUNAUSDT: 'BREAK',
    FUTURE: 'NOT_SPOT',
  })
  assert.deepEqual(thatTrade(statuses), ['BTCUSDT', 'ETHUSDT'])
})

test('parses exchangeInfo in pieces, whatever its strings contain, and never accepts a truncated one', async () => {
  const symbols = Array.from({ length: 2000 }, (_, index) => ({
    symbol: `S${index}`,
    status: index % 2 === 0 ? 'TRADING' : 'BREAK',
    filters: [{ filterType: 'LOT_SIZE', text: '}]{[\\"' }],
  }))
  const text = JSON.stringify({ rateLimits: [{ limit: 1 }], symbols, sors: [{ baseAsset: 'BTC' }] })
  const statuses = await symbolsFrom(text)
  assert.equal(statuses.size, 2000)
  assert.equal(thatTrade(statuses).length, 1000)
  for (const answer of ['{}', '[]', '{"symbols":[{"symbol":"A"}]}', text.slice(0, -200), text.slice(0, 9000)])
    await assert.rejects(symbolsFrom(answer))
})

test('requests the whole exchangeInfo from an exchange that does not know the parameter for the small form', async () => {
  const asked: string[] = []
  await served(
    (response) => {
      const { url = '' } = response.req
      asked.push(url)
      const isSmall = url.includes('?')
      response.statusCode = isSmall ? 400 : 200
      response.end(
        JSON.stringify(isSmall ? { code: -1104, msg: 'Not all sent parameters were read' } : { symbols: [] }),
      )
    },
    async (url) => assert.equal((await fetchSymbols(url)).size, 0),
  )
  assert.deepEqual(asked, ['/api/v3/exchangeInfo?showPermissionSets=false', '/api/v3/exchangeInfo'])
})
