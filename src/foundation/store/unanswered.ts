import { SQLSTATE, sqlStateOf } from './sql-state.ts'

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

const UNANSWERED_FIX =
  'Check the network to the database, and what the statement waits for in pg_stat_activity; nothing of it was committed. ' +
  "The limit is Tapeline's, which sets statement_timeout for each transaction: that of the database does not count."

/** By SQLSTATE: what ends a statement or a transaction that was right. */
const ENDED: Readonly<Record<string, string>> = {
  [SQLSTATE.readOnlyTransaction]:
    'The database takes no writes. Promote the server, or let DATABASE_URL name the primary; `bin/tapeline doctor` shows which it is.',
  [SQLSTATE.lockNotAvailable]: 'A lock was not to be had within lock_timeout: see in pg_locks who holds it.',
  [SQLSTATE.queryCanceled]:
    'Somebody has cancelled the statement, or query_timeout of a pooler has: nothing of it was committed.',
  '25P03': 'This process was paused in a transaction (idle_in_transaction_session_timeout): run it again.',
  '25P04': 'The transaction exceeded transaction_timeout of the server: run it again, with less at a time.',
}

/** The next step for a person, where a limit, a person or a server that is read-only has ended a statement; null for other errors. */
export function fixOfEnded(error: unknown): string | null {
  if (error instanceof UnansweredError) return UNANSWERED_FIX
  return ENDED[sqlStateOf(error) ?? ''] ?? null
}

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
