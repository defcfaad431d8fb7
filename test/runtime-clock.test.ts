import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '../src/foundation/runtime/clock.ts'

const START_MS = 1_700_000_000_000

test('a pause between its two readings does not move the wall clock, a step of the system does', () => {
  let nowMs = 0
  let stepMs = 0
  let pauseMs = 0
  const systemMs = () => {
    nowMs += pauseMs
    pauseMs = 0
    return START_MS + stepMs + Math.floor(nowMs)
  }
  const clock = systemClock(() => nowMs, systemMs)
  const elapsedUs = () => clock.wallMicros() - START_MS * 1000
  for (const longMs of [2, 5, 30]) {
    const beforeMs = nowMs
    pauseMs = longMs
    assert.equal(elapsedUs(), (beforeMs + longMs) * 1000)
    assert.equal(elapsedUs(), nowMs * 1000, 'no step back after the pause')
    nowMs += 1.5
  }
  stepMs = -500
  assert.equal(elapsedUs(), (Math.floor(nowMs) - 500) * 1000)
})
