import { describeError } from '../errors.ts'
import type { Queryable } from '../store/database.ts'
import { dropOldChunks } from '../store/retention.ts'
import type { Logger } from '../telemetry/log.ts'
import { sleep } from '../timing/backoff.ts'

const EVERY_MS = 60 * 60_000
const AFTER_FAILURE_MS = 60_000

/**
 * Drops what is older than `RETENTION_DAYS`, now and every hour. Every consumer tries; the database lets one do it at a
 * time. A failure is logged and tried again: it never stops the consumer.
 *
 * @returns ends it; a statement that runs is left to the database, which does all of it or nothing
 */
export function startRetention(database: Queryable, keepDays: number, log: Logger): () => void {
  const stopping = new AbortController()
  const work = async () => {
    while (!stopping.signal.aborted) {
      const done = await dropOnce(database, keepDays, log, stopping.signal)
      // Rejects when it is to end, which the loop sees.
      await sleep(done ? EVERY_MS : AFTER_FAILURE_MS, stopping.signal).catch(() => {})
    }
  }
  void work()
  return () => stopping.abort()
}

async function dropOnce(
  database: Queryable,
  keepDays: number,
  log: Logger,
  signal: AbortSignal,
): Promise<boolean> {
  try {
    for (const { table, chunks, before } of await dropOldChunks(database, keepDays)) {
      log.info({ table, chunks, before: before.toISOString() }, 'Rows past RETENTION_DAYS were dropped')
    }
    return true
  } catch (error) {
    if (signal.aborted) return false
    const forbidden = error instanceof Error && Reflect.get(error, 'code') === '42501'
    if (forbidden) {
      const fix = 'Grant its user tapeline_writer, or unset RETENTION_DAYS.'
      log.error(
        { err: error, fix },
        'RETENTION_DAYS is set, but the database forbids this user to drop chunks',
      )
    } else {
      log.warn({ err: error }, `Rows past RETENTION_DAYS are kept for now: ${describeError(error)}`)
    }
    return false
  }
}
