import { sleep } from '../foundation/runtime/backoff.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import { compressionObstacle, compressNextChunk } from '../foundation/store/compression.ts'
import type { Database, Queryable } from '../foundation/store/database.ts'
import { dropOldChunks } from '../foundation/store/retention.ts'
import { SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import type { Logger } from '../foundation/telemetry/log.ts'

/** Days after which rows are dropped or compressed; null: never. */
export interface ChunkMaintenanceConfig {
  readonly retentionDays: number | null
  readonly compressAfterDays: number | null
}

const EVERY_MS = 60 * 60_000
const AFTER_FAILURE_MS = 60_000

/**
 * Drops what is older than `RETENTION_DAYS` and compresses what is older than `COMPRESS_AFTER_DAYS`, now and every hour.
 * Every consumer tries; the database lets one do it at a time. A failure is logged and tried again: it never stops the
 * consumer.
 *
 * @returns ends it; a statement that runs is left to the database, which does all of it or nothing
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
        if (config.retentionDays !== null) await drop(database, config.retentionDays, log)
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

async function drop(database: Database, keepDays: number, log: Logger): Promise<void> {
  for (const { table, chunks, before } of await unhurried(database, (on) => dropOldChunks(on, keepDays))) {
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
    const chunk = await unhurried(database, (on) => compressNextChunk(on, afterDays))
    if (chunk === null) return true
    log.info(
      { table: chunk.table, end: chunk.end.toISOString() },
      'A day past COMPRESS_AFTER_DAYS was compressed',
    )
  }
  return true
}

/** What a big table takes longer for than a batch may take would else be cut off and begun anew, for ever. */
function unhurried<Result>(
  database: Database,
  work: (connection: Queryable) => Promise<Result>,
): Promise<Result> {
  return database.transaction(work, { queryTimeoutMs: null })
}

function report(error: unknown, log: Logger): void {
  if (sqlStateOf(error) === SQLSTATE.insufficientPrivilege) {
    const fix = 'Grant its user tapeline_writer, or unset RETENTION_DAYS and COMPRESS_AFTER_DAYS.'
    log.error({ err: error, fix }, 'The database forbids this user to drop or compress old chunks')
  } else {
    log.warn({ err: error }, `Old chunks are left as they are for now: ${describeError(error)}`)
  }
}
