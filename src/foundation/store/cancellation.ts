import type { ClientBase } from 'pg'
import { sleep, withinLimit } from '../runtime/backoff.ts'
import { onClient } from './connection.ts'

/** Limits for the cancel request, and for the statement to end after it. */
const CANCEL_LIMIT_MS = 2000
const CANCELLED_LIMIT_MS = 1000

/** Ends the cancellation. Call it before the connection is used for anything else. */
export type StopCancelling = () => Promise<void>

/**
 * Cancels the running statement in the server when the signal aborts; else closes the connection.
 * @param client in a transaction, so that its server process stays the same even through a pooler
 */
export async function cancelOnAbort(
  client: ClientBase & { end(): Promise<void> },
  url: string,
  signal: AbortSignal,
): Promise<StopCancelling> {
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
  const pid = rows[0]?.pid ?? 0
  const ended = Promise.withResolvers<'ended'>()
  let cancelling = Promise.resolve()
  const cancel = async () => {
    const request = onClient(url, CANCEL_LIMIT_MS, 'tapeline-cancel', (other) =>
      other.query('SELECT pg_cancel_backend($1)', [pid]),
    )
    // An unreachable server is left alone, as is one that ignores the request.
    await withinLimit(request, CANCEL_LIMIT_MS, 'No cancellation').catch(() => {})
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
