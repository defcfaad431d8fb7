import { sleep } from '../foundation/runtime/backoff.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import { compressionObstacle, compressNextChunk } from '../foundation/store/compression.ts'
import type { Database, Queryable } from '../foundation/store/database.ts'
import { type Dropped, dropOldChunks } from '../foundation/store/retention.ts'
import { endsSession, SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'
import { fixOfEnded, inStep, UnansweredError } from '../foundation/store/unanswered.ts'
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

/** A lock that a long query holds is gone after some attempts; what fails more often needs a person. */
const FAILURES_BEFORE_NOT_READY = 5

export interface ChunkMaintenance {
  /** Why old chunks are kept and what to do about it, once that has failed repeatedly; empty otherwise. */
  readonly problem: string
  /** Ends it and cancels the statement that runs, of which the database then does nothing. */
  stop(): void
}

/**
 * Drops what is older than `RETENTION_DAYS` and compresses what is older than `COMPRESS_AFTER_DAYS`, now and every hour.
 * Every consumer tries; the database lets one do it at a time. A failure is logged and tried again: it never stops the
 * consumer.
 */
export function startChunkMaintenance(
  database: Database,
  config: ChunkMaintenanceConfig,
  log: Logger,
  afterFailureMs = AFTER_FAILURE_MS,
): ChunkMaintenance {
  const stopping = new AbortController()
  let failures = 0
  let problem = ''
  const work = async () => {
    let compresses = config.compressAfterDays !== null
    while (!stopping.signal.aborted) {
      let wait = EVERY_MS
      try {
        if (config.retentionDays !== null) await drop(database, config.retentionDays, log, stopping.signal)
        if (compresses && config.compressAfterDays !== null) {
          compresses = await compress(database, config.compressAfterDays, log, stopping.signal)
        }
        failures = 0
        problem = ''
      } catch (error) {
        wait = afterFailureMs
        if (!isAway(error)) failures++
        if (!stopping.signal.aborted) {
          const fix = report(error, log)
          if (failures >= FAILURES_BEFORE_NOT_READY)
            problem = `old chunks could not be dropped or compressed in ${failures} attempts: ${describeError(error)}. ${fix}`
        }
      }
      // Rejects when it is to end, which the loop sees.
      await sleep(wait, stopping.signal).catch(() => {})
    }
  }
  if (config.retentionDays !== null || config.compressAfterDays !== null) void work()
  return {
    get problem() {
      return problem
    },
    stop: () => stopping.abort(),
  }
}

/** A transaction for each portion: the locks of all old chunks together may not fit into the server. */
async function drop(database: Database, keepDays: number, log: Logger, signal: AbortSignal): Promise<void> {
  const sums = new Map<string, Dropped>()
  try {
    while (!signal.aborted) {
      const dropped = await unhurried(database, 'Dropping old chunks', signal, (on) =>
        dropOldChunks(on, keepDays),
      )
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

/** The database is away or read-only, which those who write say: it will pass, and is no fault of this work. */
function isAway(error: unknown): boolean {
  return endsSession(error) || (sqlStateOf(error) === null && !(error instanceof UnansweredError))
}

/** @returns what to do about it */
function report(error: unknown, log: Logger): string {
  const fix = fixOf(error)
  if (sqlStateOf(error) === SQLSTATE.insufficientPrivilege) {
    log.error({ err: error, fix }, 'The database forbids this user to drop or compress old chunks')
  } else {
    log.warn({ err: error, fix }, `Old chunks are left as they are for now: ${describeError(error)}`)
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
        "See the logs of the consumer and of the database; until it is solved, old days stay and the database's disk fills."
      )
  }
}
