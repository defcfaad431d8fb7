import { sleep } from '../foundation/runtime/backoff.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import { compressionObstacle, compressNextChunk } from '../foundation/store/compression.ts'
import type { Database, Queryable } from '../foundation/store/database.ts'
import { dropOldChunks } from '../foundation/store/retention.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { inStep, UNANSWERED_FIX, UnansweredError } from '../foundation/store/unanswered.ts'
import type { Logger } from '../foundation/telemetry/log.ts'

/** Days after which rows are dropped or compressed; null: never. */
export interface ChunkMaintenanceConfig {
  readonly retentionDays: number | null
  readonly compressAfterDays: number | null
}

const EVERY_MS = 60 * 60_000
const AFTER_FAILURE_MS = 60_000

/** How long dropping the old chunks of the tables, or compressing a chunk, may take. */
const STEP_LIMIT_MS = 30 * 60_000

/**
 * Drops what is older than `RETENTION_DAYS` and compresses what is older than `COMPRESS_AFTER_DAYS`, now and every hour.
 * Every consumer tries; the database lets one do it at a time. A failure is logged and tried again: it never stops the
 * consumer.
 *
 * @returns ends it and cancels the statement that runs, of which the database then does nothing
 */
export function startChunkMaintenance(
  database: Database,
  config: ChunkMaintenanceConfig,
  log: Logger,
): () => void {
  const stopping = new AbortController()
  const work = async () => {
    let compresses = config.compressAfterDays !== null
    while (!stopping.signal.aborted) {
      let wait = EVERY_MS
      try {
        if (config.retentionDays !== null) await drop(database, config.retentionDays, log, stopping.signal)
        if (compresses && config.compressAfterDays !== null) {
          compresses = await compress(database, config.compressAfterDays, log, stopping.signal)
        }
      } catch (error) {
        wait = AFTER_FAILURE_MS
        if (!stopping.signal.aborted) report(error, log)
      }
      // Rejects when it is to end, which the loop sees.
      await sleep(wait, stopping.signal).catch(() => {})
    }
  }
  if (config.retentionDays !== null || config.compressAfterDays !== null) void work()
  return () => stopping.abort()
}

async function drop(database: Database, keepDays: number, log: Logger, signal: AbortSignal): Promise<void> {
  const dropped = await unhurried(database, 'Dropping old chunks', signal, (on) =>
    dropOldChunks(on, keepDays),
  )
  for (const { table, chunks, before } of dropped) {
    log.info({ table, chunks, before: before.toISOString() }, 'Rows past RETENTION_DAYS were dropped')
  }
}

/** @returns false when this server cannot compress, which has been said then */
async function compress(
  database: Database,
  afterDays: number,
  log: Logger,
  signal: AbortSignal,
): Promise<boolean> {
  const obstacle = await compressionObstacle(database)
  if (obstacle !== null) {
    log.warn(`COMPRESS_AFTER_DAYS is set, and nothing is compressed: ${obstacle}`)
    return false
  }
  while (!signal.aborted) {
    const chunk = await unhurried(database, 'Compressing a chunk', signal, (on) =>
      compressNextChunk(on, afterDays),
    )
    if (chunk === null) return true
    log.info(
      { table: chunk.table, end: chunk.end.toISOString() },
      'A day past COMPRESS_AFTER_DAYS was compressed',
    )
  }
  return true
}

/** A big table takes longer than a batch may: with the limit of batches it would be cut off and begun again without end. */
function unhurried<Result>(
  database: Database,
  step: string,
  signal: AbortSignal,
  work: (connection: Queryable) => Promise<Result>,
): Promise<Result> {
  return inStep(step, () => database.transaction(work, { limitMs: STEP_LIMIT_MS, signal }))
}

function report(error: unknown, log: Logger): void {
  if (sqlStateOf(error) === SQLSTATE.insufficientPrivilege) {
    const fix = 'Grant its user tapeline_writer, or unset RETENTION_DAYS and COMPRESS_AFTER_DAYS.'
    log.error({ err: error, fix }, 'The database forbids this user to drop or compress old chunks')
  } else {
    const fix = error instanceof UnansweredError ? { fix: UNANSWERED_FIX } : {}
    log.warn({ err: error, ...fix }, `Old chunks are left as they are for now: ${describeError(error)}`)
  }
}
