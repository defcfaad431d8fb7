import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AttemptLimit, delayFor, sleep } from '../src/foundation/runtime/backoff.ts'

const POLICY = { initialMs: 1000, maxMs: 60_000 }

test('waits between half and all of the doubling delay, never above the maximum', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 10_000 }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (attempt, random) => {
        const delay = Math.min(60_000, 1000 * 2 ** (attempt - 1))
        const wait = delayFor(attempt, POLICY, random)
        assert.ok(wait >= delay / 2 && wait <= delay, `attempt ${attempt} waits ${wait} of ${delay}`)
      },
    ),
  )
})

test('never retries earlier than the exchange requested', () => {
  assert.equal(delayFor(1, POLICY, 0.5, 90_000), 90_000)
})

test('makes at most 150 attempts in any five minutes', () => {
  const limit = new AttemptLimit(150, 300_000)
  const allowed: number[] = []
  for (let nowMs = 0; nowMs < 1_200_000; nowMs += 1000) if (limit.take(nowMs) === 0) allowed.push(nowMs)
  for (const from of allowed) {
    assert.ok(allowed.filter((at) => at >= from && at < from + 300_000).length <= 150)
  }
  assert.equal(allowed.length, 600)
})

test('reports the wait before the next attempt', () => {
  const limit = new AttemptLimit(1, 300_000)
  assert.equal(limit.take(1000), 0)
  assert.equal(limit.take(2000), 299_000)
  assert.equal(limit.take(301_000), 0)
})

test('ends a wait as soon as a stop is requested', async () => {
  const stop = new AbortController()
  const waiting = sleep(60_000, stop.signal)
  stop.abort(new Error('stopping'))
  await assert.rejects(waiting, /stopping/)
})
