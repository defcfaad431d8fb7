import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { StallWatch } from '../src/ingestion/stall-watch.ts'
import { StreamRates } from '../src/ingestion/stream-rates.ts'

const CONNECTION = 7
const BUSY = 'btcusdt@bookTicker'
const WATCHED = 'btcusdt@trade'
const SLOW = 'raretoken@trade'

function scene() {
  const rates = new StreamRates()
  const actions: Array<[number, string]> = []
  let nowMs = 0
  const watch = new StallWatch([BUSY, WATCHED, SLOW], rates, {
    resubscribe: (streams) => actions.push([nowMs, `resubscribe ${streams.join()}`]),
    reconnect: (reason) => actions.push([nowMs, reason]),
  })
  /** Runs the clock; streams deliver at their interval while `flows` says so. */
  const run = (untilMs: number, flows: Readonly<Record<string, number>>) => {
    for (; nowMs < untilMs; nowMs += 100) {
      for (const [stream, everyMs] of Object.entries(flows))
        if (nowMs % everyMs === 0) rates.seen(stream, nowMs, nowMs, CONNECTION)
      if (nowMs % 1000 === 0) watch.check(nowMs, CONNECTION, 0)
    }
  }
  return { rates, actions, run }
}

test('W1 a stream that stalls while others flow is subscribed anew within its own time, then the connection is replaced', () => {
  const { actions, run } = scene()
  run(60_000, { [BUSY]: 100, [WATCHED]: 500 })
  run(200_000, { [BUSY]: 100 })
  assert.deepEqual(
    actions.slice(0, 2).map(([atMs, what]) => [Math.round((atMs - 60_000) / 1000), what]),
    [
      [30, `resubscribe ${WATCHED}`],
      [61, `${WATCHED} has gone quiet while others flow`],
    ],
  )
})

test('W2 a symbol that trades once in ten minutes raises nothing, nor does a market that stands still', () => {
  const { actions, run } = scene()
  run(6 * 3_600_000, { [BUSY]: 100, [SLOW]: 600_000 })
  run(6 * 3_600_000 + 3_000_000, { [BUSY]: 100 })
  assert.deepEqual(actions, [])
  const still = scene()
  still.run(60_000, { [BUSY]: 100, [WATCHED]: 500 })
  still.run(600_000, {})
  assert.deepEqual(still.actions, [])
})

test('W3 bursts and pauses as trades have them raise nothing', () => {
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
