import { repeat } from '../foundation/runtime/backoff.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import {
  compressionObstacle,
  compressNextChunk,
  type Dropped,
  dropOldChunks,
} from '../foundation/store/chunks.ts'
import type { Database } from '../foundation/store/database.ts'
import { endsSession, SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { fixOfEnded, inStep, UnansweredError } from '../foundation/store/unanswered.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ArchivedRetention, Unhurried } from './archived-retention.ts'

/** Days after which rows are dropped or compressed; null means never. */
export interface ChunkMaintenanceConfig {
  readonly retentionDays: number | null
  readonly compressAfterDays: number | null
}

const EVERY_MS = 60 * 60_000
const AFTER_FAILURE_MS = 60_000

/** Time limit for dropping the old chunks of the tables, or for compressing one chunk. */
const STEP_LIMIT_MS = 30 * 60_000

/**
 * A lock held by a long query is usually released within these attempts. More failures need an
 * operator.
 */
const FAILURES_BEFORE_NOT_READY = 5

export interface ChunkMaintenance {
  /**
   * Why old chunks are not dropped or compressed, and the fix, once that has failed repeatedly;
   * otherwise empty.
   */
  readonly problem: string
  /** Stops maintenance and cancels the running statement, which the database then rolls back. */
  stop(): void
}

/**
 * Drops rows older than `RETENTION_DAYS` and compresses rows older than `COMPRESS_AFTER_DAYS`, now
 * and every hour. Every consumer tries; the database allows one at a time. A failure is logged and
 * retried. It never stops the consumer.
 *
 * @param archived drops what the archive has, if retention depends on it
 */
export function startChunkMaintenance(
  database: Database,
  { retentionDays, compressAfterDays }: ChunkMaintenanceConfig,
  clock: Clock,
  log: Logger,
  archived: ArchivedRetention | null = null,
  afterFailureMs = AFTER_FAILURE_MS,
): ChunkMaintenance {
  const stopping = new AbortController()
  const { signal } = stopping
  let failures = 0
  let problem = ''
  let canCompress = true
  // Under the limit of a batch, work on a big table would be cancelled and restarted endlessly.
  const unhurried: Unhurried = (step, work) =>
    inStep(step, () => database.transaction(work, { limitMs: STEP_LIMIT_MS, signal }))
  const work = async () => {
    try {
      if (retentionDays !== null) {
        if (archived === null) await drop(unhurried, retentionDays, log)
        else await archived.drop(unhurried, retentionDays)
      }
      if (canCompress && compressAfterDays !== null) {
        const obstacle = await compressionObstacle(database)
        canCompress = obstacle === null
        if (canCompress) await compress(unhurried, compressAfterDays, log)
        else log.warn(`COMPRESS_AFTER_DAYS is set, but nothing is compressed: ${obstacle}`)
      }
      failures = 0
      problem = ''
      return EVERY_MS
    } catch (error) {
      if (!isAway(error)) failures++
      if (!signal.aborted) {
        const fix = report(error, log)
        if (failures >= FAILURES_BEFORE_NOT_READY)
          problem = `old chunks could not be dropped or compressed in ${failures} attempts: ${describeError(error)}. ${fix}`
      }
      return afterFailureMs
    }
  }
  if (retentionDays !== null || compressAfterDays !== null) void repeat(work, signal, clock)
  return {
    get problem() {
      return problem
    },
    stop: () => stopping.abort(),
  }
}

/** Uses one transaction per portion: the server may not have room for the locks of all old chunks. */
async function drop(unhurried: Unhurried, keepDays: number, log: Logger): Promise<void> {
  const sums = new Map<string, Dropped>()
  try {
    for (;;) {
      const dropped = await unhurried('Dropping old chunks', (on) => dropOldChunks(on, keepDays))
      if (dropped.length === 0) return
      for (const one of dropped) {
        const chunks = (sums.get(one.table)?.chunks ?? 0) + one.chunks
        sums.set(one.table, { ...one, chunks })
      }
    }
  } finally {
    for (const { table, chunks, before } of sums.values())
      log.info({ table, chunks, before: before.toISOString() }, 'Rows past RETENTION_DAYS were dropped')
  }
}

async function compress(unhurried: Unhurried, afterDays: number, log: Logger): Promise<void> {
  for (;;) {
    const chunk = await unhurried('Compressing a chunk', (on) => compressNextChunk(on, afterDays))
    if (chunk === null) return
    const { table, end } = chunk
    log.info({ table, end: end.toISOString() }, 'A day past COMPRESS_AFTER_DAYS was compressed')
  }
}

/** Whether the database is unavailable or read-only. That is temporary, and the writers report it. */
function isAway(error: unknown): boolean {
  return endsSession(error) || (sqlStateOf(error) === null && !(error instanceof UnansweredError))
}

/** @returns the fix */
function report(error: unknown, log: Logger): string {
  const fix = fixOf(error)
  if (sqlStateOf(error) === SQLSTATE.insufficientPrivilege) {
    log.error({ err: error, fix }, 'The database user may not drop or compress old chunks')
  } else {
    log.warn(
      { err: error, fix },
      `Dropping or compressing old chunks failed, retrying later: ${describeError(error)}`,
    )
  }
  return fix
}

function fixOf(error: unknown): string {
  switch (sqlStateOf(error)) {
    case SQLSTATE.insufficientPrivilege:
      return 'Grant its user tapeline_writer, or unset RETENTION_DAYS and COMPRESS_AFTER_DAYS.'
    case SQLSTATE.outOfMemory:
      return 'Raise max_locks_per_transaction of the server and restart it.'
    case SQLSTATE.lockNotAvailable:
      return 'End the query or transaction that keeps an old day locked: see pg_stat_activity.'
    default:
      return (
        fixOfEnded(error) ??
        'See the logs of the consumer and of the database. Until this is fixed, old days stay and the disk fills.'
      )
  }
}
