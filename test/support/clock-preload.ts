import { readFileSync } from 'node:fs'

/*
 * Loaded into a process before its program (`node --import`): its wall clock is off by what the file CLOCK_AHEAD_FILE
 * says, in milliseconds. Monotonic time is left as it is.
 */

const LOOK_EVERY_MS = 20

const path = process.env['CLOCK_AHEAD_FILE'] ?? ''
const trueNow = Date.now.bind(Date)
let aheadMs = 0
let lookedAtMs = Number.NEGATIVE_INFINITY

Date.now = () => {
  const nowMs = trueNow()
  if (Math.abs(nowMs - lookedAtMs) > LOOK_EVERY_MS) {
    lookedAtMs = nowMs
    aheadMs = Number(readFileSync(path, 'utf8'))
  }
  return nowMs + aheadMs
}
