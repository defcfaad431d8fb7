import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { StallDetector } from '../src/ingestion/connection/stall-detector.ts'
import { StreamRates } from '../src/ingestion/connection/stream-rates.ts'

const CONNECTION = 7
const BUSY = 'btcusdt@bookTicker'
const WATCHED = 'btcusdt@trade'
const SLOW = 'raretoken@trade'
const HOUR_MS = 3_600_000

/** @param replaces whether a reconnection leads to another connection */
function scene(replaces = false) {
  const rates = new StreamRates()
  const actions: Array<[number, string]> = []
  let nowMs = 0
  let [connection, sinceMs] = [CONNECTION, 0]
  const detector = new StallDetector(rates)
  const check = () => {
    const remedy = detector.check([BUSY, WATCHED, SLOW], nowMs, connection, sinceMs)
    if (remedy === null) return
    actions.push([nowMs, remedy.reason ?? `resubscribe ${remedy.streams.join()}`])
    if (replaces && remedy.reason !== null) [connection, sinceMs] = [connection + 1, nowMs]
  }
  /** Advances the clock; streams deliver at their interval. */
  const run = (untilMs: number, flows: Readonly<Record<string, number>>, stepMs = 100) => {
    for (; nowMs < untilMs; nowMs += stepMs) {
      for (const [stream, everyMs] of Object.entries(flows))
        if (nowMs % everyMs === 0) rates.seen(stream, nowMs, nowMs, connection)
      if (nowMs % 1000 === 0) check()
    }
  }
  return { rates, actions, run }
}

test('W1 a stream that stalls while others deliver is resubscribed within its own patience, then the connection is replaced', () => {
  const { actions, run } = scene()
  run(60_000, { [BUSY]: 100, [WATCHED]: 500 })
  run(200_000, { [BUSY]: 100 })
  const seen = actions.map(([atMs, what]) => [Math.round((atMs - 60_000) / 1000), what])
  assert.deepEqual(seen.slice(0, 2), [
    [30, `resubscribe ${WATCHED}`],
    [61, `${WATCHED} went quiet while others delivered`],
  ])
})

test('W2 a symbol that trades once in ten minutes raises nothing', () => {
  const { actions, run } = scene()
  run(6 * HOUR_MS, { [BUSY]: 100, [SLOW]: 600_000 })
  run(6 * HOUR_MS + 3_000_000, { [BUSY]: 100 })
  assert.deepEqual(actions, [])
})

test('W4 a connection on which every stream stalls is replaced, with increasing waits if that does not help', () => {
  const { actions, run } = scene()
  run(60_000, { [BUSY]: 100, [WATCHED]: 500 })
  run(5 * HOUR_MS, {})
  const seconds = actions.map(([atMs]) => Math.round((atMs - 60_000) / 1000))
  assert.deepEqual(seconds.slice(0, 4), [60, 180, 420, 900])
  assert.ok(seconds.length < 13, `${seconds.length} times in five hours`)
})

test('N3 the streams of a halted symbol raise nothing, and after it resumes only its new rate counts', () => {
  const { actions, rates, run } = scene()
  run(60_000, { [BUSY]: 100, [WATCHED]: 500 })
  rates.halt([WATCHED])
  run(3_600_000, { [BUSY]: 100 })
  assert.deepEqual(actions, [])
  run(3_660_000, { [BUSY]: 100, [WATCHED]: 500 })
  run(3_800_000, { [BUSY]: 100 })
  assert.deepEqual(actions[0], [3_690_000, `resubscribe ${WATCHED}`])
})

test('W4 a connection that stalls before any stream has a rate is replaced after ten minutes', () => {
  const { actions, run } = scene()
  run(3000, { [BUSY]: 100, [WATCHED]: 500 })
  run(1_200_000, {})
  const minutes = actions.map(([atMs]) => Math.round((atMs - 3000) / 60_000))
  assert.deepEqual(minutes, [10])
})

test('W5 a stream that neither resubscription nor reconnection restores has its connection replaced with increasing waits', () => {
  const { actions, run } = scene(true)
  const [flowing, stalling] = [{ [BUSY]: 1000, [WATCHED]: 1000 }, { [BUSY]: 1000 }]
  run(60_000, flowing, 1000)
  run(24 * HOUR_MS, stalling, 1000)
  const isRenewal = ([, what]: (typeof actions)[number]) => what === `resubscribe ${WATCHED}`
  const renewed = actions.filter(isRenewal).length
  const replaced = actions.length - renewed
  assert.ok(replaced > 5 && replaced < 32, `${replaced} times in a day`)
  assert.equal(renewed, 1)
  // After it has recovered, the next stall counts as the first.
  run(24 * HOUR_MS + 60_000, flowing, 1000)
  actions.length = 0
  run(24 * HOUR_MS + 180_000, stalling, 1000)
  assert.deepEqual(actions.slice(0, 2).map(isRenewal), [true, false])
})

test('W3 normal bursts and pauses of trades raise nothing', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 25_000 }), { minLength: 30, maxLength: 200 }),
      (intervals) => {
        const rates = new StreamRates()
        let nowMs = 0
        for (const [i, intervalMs] of intervals.entries()) {
          nowMs += intervalMs
          assert.equal(rates.isQuiet(WATCHED, nowMs), false)
          rates.seen(WATCHED, i, nowMs, CONNECTION)
        }
      },
    ),
  )
})

test("W2 a stream that falls silent before its rate is known is judged by its symbol's trades", () => {
  const rates = new StreamRates()
  const aggTrade = 'btcusdt@aggTrade'
  rates.seen(aggTrade, 1, 0, CONNECTION)
  for (let i = 0; i < 100; i++) rates.seen(WATCHED, i, i * 2000, CONNECTION)
  assert.equal(rates.patienceMs(aggTrade), 60_000)
  assert.equal(rates.isQuiet(aggTrade, 61_000), true)
  assert.equal(rates.patienceMs(BUSY), Number.POSITIVE_INFINITY, 'a stream that never delivered')
})
