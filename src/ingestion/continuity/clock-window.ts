import type { ClockStep } from '../messages/receipt-clock.ts'

/** Merges two consecutive steps with no event between them. */
export function addSteps(first: ClockStep | null, second: ClockStep): ClockStep {
  if (first === null) return second
  const fromMs = second.fromMs - first.toMs + first.fromMs
  return { fromMs, toMs: second.toMs, backMs: backOf(first) + backOf(second) }
}

function backOf({ fromMs, toMs, backMs = Math.max(0, fromMs - toMs) }: ClockStep): number {
  return backMs
}

/**
 * Returns a window of receipt times that no single clock covers: the outage as either clock shows
 * it, and everything between. After a step back it contains all receipt times that occur twice.
 * @param lastMs the last receipt before the step
 * @param nextMs the first receipt after it
 */
export function windowOfStep(lastMs: number, nextMs: number, step: ClockStep) {
  const backMs = backOf(step)
  const toMs = Math.ceil(Math.max(lastMs, nextMs + backMs))
  return { fromMs: Math.floor(lastMs - backMs), toMs, reason: stepText(step) }
}

export function stepText({ fromMs, toMs }: ClockStep): string {
  return `the clock jumped from ${new Date(fromMs).toISOString()} to ${new Date(toMs).toISOString()}`
}
