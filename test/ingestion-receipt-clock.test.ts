import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CLOCK_LIMITS, type ClockStep, ReceiptClock } from '../src/ingestion/messages/receipt-clock.ts'

const START_MS = Date.UTC(2026, 0, 1)
const MINUTE_MS = 60_000

/** A receipt clock in a process that can be suspended: time passes while nothing runs. */
function receipts() {
  let monotonicMs = 0
  let wallMs = START_MS
  const due = new Set<{ readonly atMs: number; readonly run: () => void }>()
  const clock = {
    monotonicMs: () => monotonicMs,
    wallMicros: () => Math.floor(wallMs * 1000),
    schedule: (delayMs: number, run: () => void) => {
      const entry = { atMs: monotonicMs + delayMs, run }
      due.add(entry)
      return () => due.delete(entry)
    },
  }
  const runDue = () => {
    for (const entry of [...due]) if (entry.atMs <= monotonicMs && due.delete(entry)) entry.run()
  }
  const setBy = (ms: number) => {
    wallMs += ms
  }
  const stand = (ms: number) => {
    monotonicMs += ms
    setBy(ms)
  }
  const pass = (ms: number) => {
    for (let left = ms; left > 0; left -= 50) {
      stand(Math.min(50, left))
      runDue()
    }
  }
  const freezes: number[] = []
  const steps: ClockStep[] = []
  let seconds = 0
  const receiptClock = new ReceiptClock(clock, CLOCK_LIMITS)
  receiptClock.start({
    onSecond: () => seconds++,
    onFreeze: (ms) => freezes.push(ms),
    onStep: (step) => steps.push(step),
  })
  return { clock, runDue, stand, setBy, pass, receiptClock, freezes, steps, seconds: () => seconds }
}

test('P2 a frame read before the timer runs detects that the process was paused', () => {
  const { receiptClock, freezes, stand, pass, runDue, seconds } = receipts()
  pass(5000)
  assert.equal(seconds(), 5)
  stand(2200)
  assert.ok(receiptClock.stampFrame() !== null, 'one tick late but less than two seconds')
  runDue()
  stand(3000)
  assert.equal(receiptClock.stampFrame(), null)
  assert.deepEqual(freezes, [2750])
  runDue()
  assert.ok(receiptClock.stampFrame() !== null, 'frames of new connections are accepted')
  assert.deepEqual(freezes, [2750])
})

test('P2 the timer detects a freeze without reads', () => {
  const { receiptClock, freezes, steps, stand, runDue } = receipts()
  stand(10 * MINUTE_MS)
  runDue()
  assert.deepEqual(freezes, [10 * MINUTE_MS - 250])
  assert.deepEqual(steps, [])
  receiptClock.stop()
})

for (const [what, byMs] of [
  ['set ahead', 2 * 60 * MINUTE_MS],
  ['set back', -50 * MINUTE_MS],
  ['set back by slightly more than the limit', -1001],
  ['advanced while monotonic time stood still, as in a suspend', 90_000],
] as const) {
  for (const by of ['frame', 'timer', 'fetched trade'] as const) {
    test(`P3 a wall clock ${what} is detected by a ${by}, and stamps are correct immediately`, () => {
      const { receiptClock, freezes, steps, setBy, pass, runDue, stand } = receipts()
      pass(300)
      const before = receiptClock.stampFrame()
      setBy(byMs)
      if (by === 'frame') assert.equal(receiptClock.stampFrame(), null, 'it waited in the buffer')
      else if (by === 'fetched trade') assert.equal(receiptClock.stamp().ms, START_MS + 300 + byMs)
      else {
        stand(250)
        runDue()
      }
      const atMs = START_MS + (by === 'timer' ? 550 : 300)
      assert.deepEqual(steps, [{ fromMs: atMs, toMs: atMs + byMs }])
      const after = receiptClock.stampFrame()
      assert.equal(after?.ms, atMs + byMs)
      assert.ok(before !== null && after !== null && Math.abs(after.us - 1000 * after.ms) <= 1)
      pass(5000)
      assert.equal(steps.length, 1, 'once')
      assert.deepEqual(freezes, [])
    })
  }
}

test('P3 small backward steps that exceed the limit in sum are a step', () => {
  const { receiptClock, steps, setBy, pass } = receipts()
  for (let i = 0; i < 3; i++) {
    receiptClock.stampFrame()
    setBy(-600)
    pass(250)
  }
  assert.equal(steps.length, 1)
})

test('stamps increase strictly through small steps, and follow the wall clock within the limit', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -900, max: 900 }), { minLength: 1, maxLength: 50 }), (changes) => {
      const { clock, receiptClock, steps, setBy, pass } = receipts()
      let last = 0
      for (const ms of changes) {
        const seen = steps.length
        setBy(ms)
        pass(50)
        const stamp = receiptClock.stampFrame()
        if (steps.length > seen) last = 0
        if (stamp === null) continue
        const wallUs = clock.wallMicros()
        assert.ok(stamp.us > last && stamp.us >= wallUs && stamp.us <= wallUs + 1_000_001)
        assert.equal(stamp.ms, Math.floor(wallUs / 1000), 'milliseconds are those of the wall clock')
        last = stamp.us
      }
    }),
  )
})
