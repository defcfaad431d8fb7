import { deadLetter } from '../foundation/dead-letters/dead-letter.ts'
import { SECOND_UNDER_ID } from '../foundation/market/event.ts'
import { wallMs } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { describeRefusal, sqlStateOf } from '../foundation/store/sql-state.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import { type Batch, ROW_TABLES, type RowTable } from './batch.ts'
import type { ConsumerStore, TryRows } from './consumer-store.ts'

/** A row that the database refused, by its index in its table's part of the batch. */
export interface Rejection {
  readonly index: number
  readonly error: unknown
}

/**
 * Finds the refused rows by bisection. A bad row among `count` costs about 2·log2(count)
 * statements.
 *
 * @param limit ends the search after this many: single rows are not the problem then
 * @returns by ascending index
 */
export async function findRejected(count: number, tryRows: TryRows, limit: number): Promise<Rejection[]> {
  const refused: Rejection[] = []
  const search = async (from: number, to: number): Promise<void> => {
    if (from >= to || refused.length >= limit) return
    const error = await tryRows(from, to)
    if (error === null) return
    if (to - from === 1) {
      refused.push({ index: from, error })
      return
    }
    const middle = (from + to) >> 1
    await search(from, middle)
    await search(middle, to)
  }
  await search(0, count)
  return refused
}

/** Consecutive refused rows that still count as single bad rows. */
export const MAX_REJECTIONS = 20

/** Accepted rows that cancel one refusal. A constraint that refuses more than 5 % is considered wrong. */
const ACCEPTED_PER_REFUSAL = 20

/**
 * Distinguishes bad rows from a constraint that refuses too many, which must not turn a whole topic
 * into dead letters. Each constraint has a level. It rises by one with each refused row and falls
 * by one with every 20 rows that its table accepts. Above 20 the database is considered faulty. So
 * 1 bad row in 1,000 is always tolerated, and 21 in a row are not.
 */
export class RejectionLimit {
  readonly #levels = new Map<string, number>()

  /** Counts accepted rows of a table. */
  accepted(table: string, rows: number): void {
    for (const [key, level] of this.#levels) {
      if (!key.startsWith(`${table} `)) continue
      const next = level - rows / ACCEPTED_PER_REFUSAL
      if (next <= 0) this.#levels.delete(key)
      else this.#levels.set(key, next)
    }
  }

  /** @returns true when the constraint has now refused too many */
  refused(table: string, constraint: string): boolean {
    const key = `${table} ${constraint}`
    const level = (this.#levels.get(key) ?? 0) + 1
    this.#levels.set(key, level)
    return level > MAX_REJECTIONS
  }
}

/**
 * Turns the rows that the database refuses into dead letters of the batch.
 *
 * @param refusal of the batch
 * @param known null before the first refused row
 * @throws TapelineError `DATABASE` when single rows are not the reason
 */
export async function setRefusedAside(
  batch: Batch,
  refusal: unknown,
  known: RejectionLimit | null,
  { store, clock, log }: ServicePorts & { readonly store: Pick<ConsumerStore, 'probe'> },
): Promise<RejectionLimit> {
  const found = new Map<RowTable, Rejection[]>()
  await store.probe(batch, async (rowsOf) => {
    for (const table of ROW_TABLES) {
      const refused = await findRejected(batch.rowCount(table), rowsOf(table), MAX_REJECTIONS + 1)
      if (refused.length > 0) found.set(table, refused)
    }
  })
  if (found.size === 0) {
    const what = 'Batch insert failed, but every row succeeded individually'
    throw new TapelineError('DATABASE', `${what}: ${describeRefusal(refusal)}`, {
      fix: 'Look for triggers or constraints that were added to the tables. No row of the batch was committed.',
      cause: refusal,
    })
  }
  const limit = known ?? new RejectionLimit()
  for (const [table, refused] of found) {
    let next = 0
    for (const { index, error } of refused) {
      limit.accepted(table, index - next)
      next = index + 1
      if (limit.refused(table, constraintOf(error))) throw refusesAsARule(table, error)
    }
    const rows = refused.map(({ index, error }) => {
      return { index, reason: `refused by the database: ${describeRefusal(error)}` }
    })
    setAside(batch, table, rows, wallMs(clock))
    const error = refused[0]?.error
    log.warn(
      { table, rows: refused.length, err: error },
      `The database refused ${plural(refused.length, 'row')} of ${table}, which became dead letters: ${describeRefusal(error)}`,
    )
  }
  return limit
}

/**
 * Turns rows of `trades` whose id and time another event has into dead letters. Discarding them
 * would leave no trace.
 *
 * @param indexes ascending
 */
export function setSecondAside(batch: Batch, indexes: readonly number[], nowMs: number, log: Logger): void {
  const rows = indexes.map((index) => ({ index, reason: SECOND_UNDER_ID }))
  setAside(batch, 'trades', rows, nowMs)
  log.warn(
    { rows: indexes.length },
    `${plural(indexes.length, 'row')} of trades became dead letters: ${SECOND_UNDER_ID}`,
  )
}

/** @param rows by ascending index */
function setAside(
  batch: Batch,
  table: RowTable,
  rows: ReadonlyArray<{ readonly index: number; readonly reason: string }>,
  failedAtMs: number,
): void {
  const letters = rows.toReversed().map(({ index, reason }) => {
    const { partition, message } = batch.removeRow(table, index)
    return deadLetter(partition, message, reason, failedAtMs)
  })
  batch.found.push(...letters.reverse())
}

function refusesAsARule(table: RowTable, cause: unknown): TapelineError {
  const what = `The database refuses too many rows of ${table}: ${describeRefusal(cause)}`
  const fix =
    'Fix or drop the constraint or trigger and start the consumer again: no row of the batch was committed. ' +
    'Then store the earlier dead letters: bin/tapeline dead-letters retry'
  return new TapelineError('DATABASE', what, { fix, cause })
}

/**
 * Identifies the refusal by SQLSTATE and constraint name, if any. Strips the chunk number that
 * TimescaleDB puts before it.
 */
function constraintOf(error: unknown): string {
  const name: unknown = error instanceof Error ? Reflect.get(error, 'constraint') : null
  return `${sqlStateOf(error) ?? ''} ${typeof name === 'string' ? name.replace(/^\d+_\d+_/, '') : ''}`
}
