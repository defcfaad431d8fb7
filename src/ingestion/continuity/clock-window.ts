import type { GapCause } from '../../foundation/market/gap-causes.ts'
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
 * That of a reset ends at the first receipt of the new ids, or else the audit would count later
 * ones among the old ids.
 * @param lastMs the last receipt before the step
 * @param nextMs the first receipt after it
 * @param found what is known without the step
 */
export function windowOfStep(lastMs: number, nextMs: number, step: ClockStep, found: GapCause) {
  const backMs = backOf(step)
  const fromMs = Math.floor(lastMs - backMs)
  const reason = stepText(step)
  if (found === 'reset') return { fromMs, toMs: Math.max(lastMs, nextMs), cause: found, reason }
  return { fromMs, toMs: Math.ceil(Math.max(lastMs, nextMs + backMs)), cause: 'clock' as const, reason }
}

export function stepText({ fromMs, toMs }: ClockStep): string {
  return `the clock jumped from ${new Date(fromMs).toISOString()} to ${new Date(toMs).toISOString()}`
}
