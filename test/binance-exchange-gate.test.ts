import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ExchangeGate } from '../src/foundation/binance/exchange-gate.ts'
import { ExchangeRefusal, refusalOf } from '../src/foundation/binance/refusal.ts'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const SECOND_MS = 1000
const { signal } = new AbortController()

function scene() {
  const clock = new VirtualClock()
  const reports: string[] = []
  const gate = new ExchangeGate(
    clock,
    () => 0.5,
    (level, _details, text) => reports.push(`${level}: ${text}`),
  )
  return { clock, gate, reports }
}

const refusal = (status: number, retryAfter: number | null = null) =>
  refusalOf(status, retryAfter === null ? null : String(retryAfter), '', 0)

test('B5 a refusal stops its side for Retry-After, 418 stops both, and each change is reported once', async () => {
  const { clock, gate, reports } = scene()
  gate.refused('rest', refusal(429, 30))
  gate.refused('rest', refusal(429, 30))
  assert.deepEqual([gate.leftMs('rest'), gate.leftMs('handshakes')], [30 * SECOND_MS, 0])
  await clock.advance(31 * SECOND_MS)
  gate.served('rest')
  gate.refused('handshakes', refusal(418, 300))
  assert.deepEqual([gate.leftMs('rest'), gate.leftMs('handshakes')], [300 * SECOND_MS, 300 * SECOND_MS])
  assert.match(gate.summary, /handshakes \(HTTP 418\), next attempt \d{4}-.*Z; .*REST \(HTTP 418\)/)
  // A response already on its way when the ban began does not end it.
  gate.served('rest')
  assert.equal(gate.status().rest?.status, 418)
  await clock.advance(400 * SECOND_MS)
  gate.served('handshakes')
  assert.deepEqual(gate.status(), { rest: null, handshakes: null })
  assert.ok(reports.every((text) => text.startsWith('info') || /; next attempt 20..-.*Z$/.test(text)))
  assert.deepEqual(
    reports.map((text) => text.replace(/; next attempt .*/, '')),
    [
      'warn: The exchange refuses REST: HTTP 429',
      'info: The exchange serves REST again',
      'warn: The exchange refuses WebSocket handshakes and everything else: HTTP 418',
      'info: The exchange serves WebSocket handshakes again',
    ],
  )
})

test('B5 one of fifty connections probes a refused side, and the others follow once it is served', async () => {
  const { clock, gate } = scene()
  gate.refused('handshakes', refusal(418, 60))
  let tried = 0
  let isServed = false
  const waiting = Array.from({ length: 50 }, async () => {
    for (;;) {
      await gate.wait('handshakes', signal)
      tried++
      await sleep(200, signal, clock)
      if (isServed) return gate.served('handshakes')
      gate.refused('handshakes', refusal(418, 60))
    }
  })
  await clock.advance(59 * SECOND_MS)
  assert.equal(tried, 0)
  await clock.advance(5 * 60 * SECOND_MS)
  assert.ok(tried >= 4 && tried <= 6, `${tried} handshakes`)
  const before = tried
  isServed = true
  await clock.advance(62 * SECOND_MS)
  await Promise.all(waiting)
  assert.equal(tried, before + 50)
})

test('B5 if the probe gets no answer, the next connection takes its turn', async () => {
  const { clock, gate } = scene()
  gate.refused('handshakes', refusal(503))
  let tried = 0
  const waiting = Array.from({ length: 3 }, () => gate.wait('handshakes', signal).then(() => tried++))
  await clock.advance(2 * SECOND_MS)
  assert.equal(tried, 1)
  await clock.advance(30 * SECOND_MS)
  await Promise.all(waiting)
  assert.equal(tried, 3)
})

test('B5 makes no attempt while its side is stopped; a single failed request stops nothing', async () => {
  const { clock, gate } = scene()
  const refused =
    (status: number, retryAfter: number | null = null) =>
    async () => {
      throw new ExchangeRefusal('exchangeInfo', refusal(status, retryAfter))
    }
  for (const status of [404, 500]) {
    await assert.rejects(gate.attempt('rest', refused(status)), ExchangeRefusal)
    assert.equal(gate.leftMs('rest'), 0, `HTTP ${status}`)
  }
  await assert.rejects(gate.attempt('rest', refused(503, 120)), ExchangeRefusal)
  assert.equal(gate.leftMs('rest'), 120 * SECOND_MS)
  let made = 0
  const make = async () => made++
  await assert.rejects(gate.attempt('rest', make), /REST not tried until .*: HTTP 503/)
  assert.equal(made, 0)
  await clock.advance(121 * SECOND_MS)
  await gate.attempt('rest', make)
  assert.equal(made, 1)
})
