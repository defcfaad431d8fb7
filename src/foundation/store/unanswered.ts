import { SQLSTATE, sqlStateOf } from './sql-state.ts'

/** A statement without an answer within its limit: server or network hang, or the work takes longer. */
export class UnansweredError extends Error {
  readonly limitMs: number
  /** The purpose of the statement; empty if none was given. */
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
  'Check the network to the database, and see in pg_stat_activity what the statement waits for; nothing was committed. ' +
  'The limit is set by Tapeline, per transaction, and overrides the statement_timeout of the database.'

/** By SQLSTATE: conditions that end a valid statement or transaction. */
const ENDED: Readonly<Record<string, string>> = {
  [SQLSTATE.readOnlyTransaction]:
    'The database accepts no writes. Promote the server, or set DATABASE_URL to the primary; `bin/tapeline doctor` shows which it is.',
  [SQLSTATE.lockNotAvailable]: 'A lock was not released within lock_timeout: pg_locks shows its holder.',
  [SQLSTATE.queryCanceled]:
    'An operator, or query_timeout of a pooler, cancelled the statement: nothing was committed.',
  '25P03': 'This process was paused in a transaction (idle_in_transaction_session_timeout): run it again.',
  '25P04': 'The transaction exceeded transaction_timeout of the server: run it again, with less at a time.',
}

/** Returns the next step if a limit, a person or a read-only server ended a statement; else null. */
export function fixOfEnded(error: unknown): string | null {
  if (error instanceof UnansweredError) return UNANSWERED_FIX
  return ENDED[sqlStateOf(error) ?? ''] ?? null
}

/** Adds the step to the error of an unanswered statement. */
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
