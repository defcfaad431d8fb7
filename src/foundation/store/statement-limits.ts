import { Client, type ClientBase } from 'pg'
import { sleep } from '../runtime/backoff.ts'
import { withinLimit } from '../runtime/limit.ts'
import { connectionOptions } from './connection-options.ts'
import { SQLSTATE, sqlStateOf } from './sql-state.ts'
import { UnansweredError } from './unanswered.ts'

/** How long the server is asked to cancel a statement, and how long the statement may then take to end. */
const CANCEL_LIMIT_MS = 2000
const CANCELLED_LIMIT_MS = 1000

/** How much later than the server the client gives a statement up, so that a server that answers ends it itself. */
export const CLIENT_GRACE_MS = 2000

/**
 * Runs a statement that has a limit, which the server and `pg` watch.
 *
 * @throws UnansweredError after the limit
 */
export async function limitedStatement<Answer>(
  limitMs: number,
  statement: () => Promise<Answer>,
): Promise<Answer> {
  const startedMs = performance.now()
  try {
    return await statement()
  } catch (error) {
    // The error of `pg` has no code, and that of the server is the same when a person cancels: the time tells.
    const hasCode = error instanceof Error && Reflect.get(error, 'code') !== undefined
    const mayBeLimit = !hasCode || sqlStateOf(error) === SQLSTATE.queryCanceled
    if (mayBeLimit && performance.now() - startedMs >= limitMs - 1)
      throw new UnansweredError(limitMs, '', error)
    throw error
  }
}

/** Ends what the signal has begun; to be called before the connection is used for something else. */
export type StopCancelling = () => Promise<void>

/**
 * From now on the signal cancels the statement that runs on this connection, at the server. Where the server does not do
 * it within a few seconds, the connection is closed.
 *
 * @param client in a transaction, so that its server process stays the same also with a pooler in between
 */
export async function cancelOnAbort(
  client: ClientBase & { end(): Promise<void> },
  url: string,
  signal: AbortSignal | undefined,
): Promise<StopCancelling> {
  if (signal === undefined) return async () => {}
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
  const pid = rows[0]?.pid ?? 0
  const ended = Promise.withResolvers<'ended'>()
  let cancelling = Promise.resolve()
  const cancel = async () => {
    // A server that cannot be asked is left, as is one that does not obey.
    await withinLimit(cancelStatement(url, pid), CANCEL_LIMIT_MS, 'No cancellation').catch(() => {})
    const late = sleep(CANCELLED_LIMIT_MS)
    if ((await Promise.race([ended.promise, late])) !== 'ended') await client.end()
  }
  const onAbort = () => {
    cancelling = cancel().catch(() => {})
  }
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  return async () => {
    ended.resolve('ended')
    signal.removeEventListener('abort', onAbort)
    await cancelling
  }
}

async function cancelStatement(url: string, pid: number): Promise<void> {
  const client = new Client({
    ...connectionOptions(url),
    connectionTimeoutMillis: CANCEL_LIMIT_MS,
    query_timeout: CANCEL_LIMIT_MS,
    application_name: 'tapeline-cancel',
  })
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query('SELECT pg_cancel_backend($1)', [pid])
  } finally {
    await client.end()
  }
}
