import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FreezeDetector } from '../src/ingestion/connection/freeze-detector.ts'

/** A clock whose process can be stopped: time passes and nothing runs. */
function stoppableClock() {
  let nowMs = 0
  const due: Array<{ atMs: number; run: (() => void) | null }> = []
  return {
    monotonicMs: () => nowMs,
    wallMicros: () => nowMs * 1000,
    schedule: (delayMs: number, run: () => void) => {
      const entry: { atMs: number; run: (() => void) | null } = { atMs: nowMs + delayMs, run }
      due.push(entry)
      return () => {
        entry.run = null
      }
    },
    stand: (ms: number) => {
      nowMs += ms
    },
    runDue: () => {
      for (const entry of due.splice(0)) {
        if (entry.atMs > nowMs) due.push(entry)
        else entry.run?.()
      }
    },
  }
}

test('P2 a frame that is read before the timer runs finds that the process stood still', () => {
  const clock = stoppableClock()
  const stood: number[] = []
  const freezeDetector = new FreezeDetector(
    clock,
    () => {},
    (ms) => stood.push(ms),
  )
  freezeDetector.start()
  for (let i = 0; i < 5; i++) {
    clock.stand(1000)
    assert.equal(freezeDetector.hasJustEnded(), false)
    clock.runDue()
  }
  clock.stand(5900)
  assert.equal(freezeDetector.hasJustEnded(), false, 'a tick late and less than five seconds')
  clock.runDue()
  clock.stand(9000)
  assert.equal(freezeDetector.hasJustEnded(), true)
  assert.deepEqual(stood, [8000])
  clock.runDue()
  assert.equal(freezeDetector.hasJustEnded(), false, 'what is read from new connections is taken')
})

test('P2 a freeze in which nothing was read is noticed by the timer', () => {
  const clock = stoppableClock()
  const stood: number[] = []
  const freezeDetector = new FreezeDetector(
    clock,
    () => {},
    (ms) => stood.push(ms),
  )
  freezeDetector.start()
  clock.stand(7000)
  clock.runDue()
  assert.deepEqual(stood, [6000])
  freezeDetector.stop()
})
