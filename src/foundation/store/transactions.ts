import type { Connection, QueryAnswer, TransactionOptions } from './database.ts'
import { OPENING_LIMIT_MS, openingError, openingText, type TransactionMode } from './opening.ts'
import { endsSession, SQLSTATE, sqlStateOf } from './sql-state.ts'

/** One session at the server, out of a pool. */
export interface Session {
  /** @param limitMs as {@link openingText} has set it at the server; the client waits a little longer */
  run<Row>(limitMs: number, text: string, values?: readonly unknown[]): Promise<QueryAnswer<Row>>
  copyIn(limitMs: number, statement: string, rows: Buffer): Promise<number>
  /** From now on the signal cancels what runs. @returns ends that, to be called before the session is used for something else */
  cancelOnAbort(signal: AbortSignal | undefined): Promise<() => Promise<void>>
  /** Back to the pool. */
  release(): void
  /** Out of the pool: it must not be used again. */
  close(): void
}

/** Runs work between BEGIN and COMMIT, on a session of the pool. */
export type Transact = <Result>(
  mode: TransactionMode,
  work: (connection: Connection) => Promise<Result>,
  options?: Pick<TransactionOptions, 'limitMs' | 'signal'>,
) => Promise<Result>

/**
 * The one way in which statements reach the server. No state outlives a transaction, except in a session that is closed for it.
 *
 * @param limitMs of a statement of a transaction that names none, and of COMMIT
 */
export function transactionsOn(acquire: () => Promise<Session>, limitMs: number): Transact {
  return async (mode, work, { limitMs: own = limitMs, signal } = {}) => {
    signal?.throwIfAborted()
    const session = await acquire()
    let stopCancelling = async () => {}
    try {
      await session
        .run(Math.min(limitMs, OPENING_LIMIT_MS), openingText(mode, own))
        .catch((error: unknown) => {
          throw openingError(error)
        })
      stopCancelling = await session.cancelOnAbort(signal)
      const result = await work({
        query: (text, values) => {
          signal?.throwIfAborted()
          return session.run(own, text, values)
        },
        copyIn: (statement, rows) => session.copyIn(limitMs, statement, rows),
      })
      await stopCancelling()
      await session.run(limitMs, 'COMMIT')
      session.release()
      return result
    } catch (error) {
      await stopCancelling()
      await giveBack(session, limitMs, error)
      throw signal?.aborted === true ? signal.reason : error
    }
  }
}

/** Gives the session back clean, or closes it. */
async function giveBack(session: Session, limitMs: number, cause: unknown): Promise<void> {
  // Without a code it was not the server that spoke: it may be gone, or still busy with the statement.
  const spoke = cause instanceof Error && typeof Reflect.get(cause, 'code') === 'string'
  // Another program may have left its search_path to a pooler's session, which ends with this connection.
  const isStrange = sqlStateOf(cause) === SQLSTATE.undefinedTable
  if (!spoke || endsSession(cause) || isStrange) {
    session.close()
    return
  }
  try {
    await session.run(limitMs, 'ROLLBACK')
    session.release()
  } catch {
    session.close()
  }
}
