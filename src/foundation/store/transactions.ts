import type { Connection, QueryAnswer, TransactionOptions } from './database.ts'
import { OPENING_LIMIT_MS, openingError, openingText, type TransactionMode } from './opening.ts'
import { endsSession, SQLSTATE, sqlStateOf } from './sql-state.ts'

/** A session of the pool. */
export interface Session {
  /**
   * @param limitMs the limit that {@link openingText} has set in the server; the client waits a
   *   little longer
   */
  run<Row>(limitMs: number, text: string, values?: readonly unknown[]): Promise<QueryAnswer<Row>>
  copyIn(limitMs: number, statement: string, rows: Buffer): Promise<number>
  /**
   * Lets the signal cancel the running statement. @returns a function that ends this; call it
   * before the session is used for anything else
   */
  cancelOnAbort(signal: AbortSignal | undefined): Promise<() => Promise<void>>
  /** Returns the session to the pool. */
  release(): void
  /** Closes the session and removes it from the pool. */
  close(): void
}

/** Runs work between BEGIN and COMMIT, in a session of the pool. */
export type Transact = <Result>(
  mode: TransactionMode,
  work: (connection: Connection) => Promise<Result>,
  options?: Pick<TransactionOptions, 'limitMs' | 'signal'>,
) => Promise<Result>

/**
 * Returns the only way to send statements to the server. No state outlives a transaction; a session
 * with other state is closed.
 *
 * @param limitMs for COMMIT, and for statements of a transaction without a limit
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

/** Returns the session to the pool if it is clean; otherwise closes it. */
async function giveBack(session: Session, limitMs: number, cause: unknown): Promise<void> {
  // An error without a code is not from the server, which may be down or still busy with the
  // statement.
  const spoke = cause instanceof Error && typeof Reflect.get(cause, 'code') === 'string'
  // Another program may have left its search_path in a pooler's session; closing this connection
  // ends it.
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
