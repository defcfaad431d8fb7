/**
 * A statement that was not answered within its limit: its server hangs, the network loses what it sends, or it has more
 * to do than the limit allows for.
 */
export class UnansweredError extends Error {
  readonly limitMs: number
  /** What the statement was for; empty when nobody has said. */
  readonly step: string

  constructor(limitMs: number, step = '', cause?: unknown) {
    super(
      `${step === '' ? '' : `${step}: `}the database has not answered within ${durationText(limitMs)}`,
      cause === undefined ? {} : { cause },
    )
    this.name = 'UnansweredError'
    this.limitMs = limitMs
    this.step = step
  }
}

/** The next step for a person. */
export const UNANSWERED_FIX =
  'Check the network to the database, and what the statement waits for in pg_stat_activity; nothing of it was committed.'

/** Names the step in the error of a statement that was not answered. */
export async function inStep<Result>(step: string, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof UnansweredError) || error.step !== '') throw error
    throw new UnansweredError(error.limitMs, step, error.cause)
  }
}

function durationText(ms: number): string {
  return ms >= 120_000 ? `${Math.round(ms / 60_000)} minutes` : `${ms / 1000} s`
}
