import type { ClockStep } from '../messages/receipt-clock.ts'

/**
 * A window of receipt times that no single clock covers, with the cause `clock`. Whole
 * milliseconds.
 */
export interface ClockWindow {
  readonly fromMs: number
  readonly toMs: number
  readonly reason: string
}

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
 * Returns the window around a clock step: the outage as either clock shows it, and everything
 * between. After a step back it contains all receipt times that occur twice.
 *
 * @param lastMs the last receipt before the step
 * @param nextMs the first receipt after it
 */
export function windowOfStep(lastMs: number, nextMs: number, step: ClockStep): ClockWindow {
  const backMs = backOf(step)
  return {
    fromMs: Math.floor(lastMs - backMs),
    toMs: Math.ceil(Math.max(lastMs, nextMs + backMs)),
    reason: `the clock jumped from ${timeText(step.fromMs)} to ${timeText(step.toMs)}`,
  }
}

function timeText(ms: number): string {
  return new Date(ms).toISOString()
}
