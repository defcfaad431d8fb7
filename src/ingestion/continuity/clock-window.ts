/** What the wall clock would have shown at one moment, and what it did show. Milliseconds since the Unix epoch. */
export interface ClockStep {
  readonly fromMs: number
  readonly toMs: number
}

/** Receipt times that no one clock covers: a window with the cause `clock`. Whole milliseconds. */
export interface ClockWindow {
  readonly fromMs: number
  readonly toMs: number
  readonly reason: string
}

/** One step in place of two that follow each other with no event between them. */
export function addSteps(first: ClockStep | null, second: ClockStep): ClockStep {
  if (first === null) return second
  return { fromMs: second.fromMs - first.toMs + first.fromMs, toMs: second.toMs }
}

/**
 * The window round a step of the clock: the outage as either clock shows it, and everything between the two. After a
 * step back it holds all receipt times that occur twice.
 *
 * @param lastMs the last receipt before the step
 * @param nextMs the first receipt after it
 */
export function windowOfStep(lastMs: number, nextMs: number, { fromMs, toMs }: ClockStep): ClockWindow {
  const forwardMs = toMs - fromMs
  return {
    fromMs: Math.floor(Math.min(lastMs, lastMs + forwardMs)),
    toMs: Math.ceil(Math.max(lastMs, nextMs, nextMs - forwardMs)),
    reason: `the clock went from ${timeText(fromMs)} to ${timeText(toMs)}`,
  }
}

function timeText(ms: number): string {
  return new Date(ms).toISOString()
}
