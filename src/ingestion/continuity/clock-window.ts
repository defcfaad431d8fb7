import type { ClockStep } from '../messages/receipt-clock.ts'

/** Receipt times that no one clock covers: a window with the cause `clock`. Whole milliseconds. */
export interface ClockWindow {
  readonly fromMs: number
  readonly toMs: number
  readonly reason: string
}

/** One step in place of two that follow each other with no event between them. */
export function addSteps(first: ClockStep | null, second: ClockStep): ClockStep {
  if (first === null) return second
  const fromMs = second.fromMs - first.toMs + first.fromMs
  return { fromMs, toMs: second.toMs, backMs: backOf(first) + backOf(second) }
}

function backOf({ fromMs, toMs, backMs = Math.max(0, fromMs - toMs) }: ClockStep): number {
  return backMs
}

/**
 * The window round a step of the clock: the outage as either clock shows it, and everything between the two. After a
 * step back it holds all receipt times that occur twice.
 *
 * @param lastMs the last receipt before the step
 * @param nextMs the first receipt after it
 */
export function windowOfStep(lastMs: number, nextMs: number, step: ClockStep): ClockWindow {
  const backMs = backOf(step)
  return {
    fromMs: Math.floor(lastMs - backMs),
    toMs: Math.ceil(Math.max(lastMs, nextMs + backMs)),
    reason: `the clock went from ${timeText(step.fromMs)} to ${timeText(step.toMs)}`,
  }
}

function timeText(ms: number): string {
  return new Date(ms).toISOString()
}
