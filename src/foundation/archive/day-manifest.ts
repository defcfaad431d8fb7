import { z } from 'zod'
import { EVENT_TYPES } from '../market/event.ts'
import type { DuckDb } from './duckdb.ts'
import { ARCHIVE_TABLES } from './tables.ts'

/*
 * What a published day lacks, and why, as its list says. `verify --archive` is the audit; this is
 * what the files and the ledger said when the list was made.
 */

const DAY_MS = 86_400_000
const MAX_DAYS = 366

const id = z.int().min(0)

/** A row of the ledger. Times are milliseconds since the Unix epoch. */
const MISSING = z.object({
  gap_id: z.string(),
  revision: z.int(),
  symbol: z.string(),
  epoch: z.int(),
  from_id: id.nullable(),
  to_id: id.nullable(),
  from_time: z.int().nullable(),
  to_time: z.int().nullable(),
  cause: z.string(),
  status: z.enum(['open', 'filled', 'unrecoverable']),
  reason: z.string().nullable(),
  detected_at: z.int(),
  updated_at: z.int(),
})

type Gap = z.infer<typeof MISSING>

/** By table: the rows of the ledger, in their last revisions. */
export type Ledger = ReadonlyMap<string, readonly Gap[]>

const SYMBOL = z.object({
  rows: z.int(),
  firstId: z.int(),
  lastId: z.int(),
  /** Ids between the first and the last that no row has; null for quotes, whose ids have holes. */
  missingIds: z.int().min(0).nullable(),
})

export type SymbolFigures = z.infer<typeof SYMBOL>

export const DAY_MANIFEST = {
  symbols: z.record(z.string(), SYMBOL),
  /** Rows of the ledger that touch the day: the missing ids and times, and why. */
  missing: z.array(MISSING),
  /**
   * `complete`: no id is missing between the first and last of each symbol, and the ledger has nothing
   * for the day. `incomplete`: what is missing is in `missing`. `unexplained`: more ids are missing.
   */
  verdict: z.enum(['complete', 'incomplete', 'unexplained']),
}

export type DayManifest = { readonly [Key in keyof typeof DAY_MANIFEST]: z.infer<(typeof DAY_MANIFEST)[Key]> }

/** @param relation see `textRelation` */
export async function readLedger(duckDb: DuckDb, relation: string): Promise<Ledger> {
  const number = (column: string) => `${column}::DOUBLE AS ${column}`
  const time = (column: string) => `epoch_ms(${column})::DOUBLE AS ${column}`
  const rows = await duckDb.rows<Gap & { event_type: string }>(
    `SELECT gap_id, revision, symbol, event_type, epoch, ${number('from_id')}, ${number('to_id')}, ${time('from_time')},
       ${time('to_time')}, cause, status, reason, ${time('detected_at')}, ${time('updated_at')}
     FROM (${relation}) ORDER BY gap_id`,
  )
  return new Map(
    EVENT_TYPES.map((type) => [
      ARCHIVE_TABLES[type].name,
      rows.filter(({ event_type }) => event_type === type).map((row) => MISSING.parse(row)),
    ]),
  )
}

/** Compares the figures of a day with the ledger. */
export function dayManifest(
  symbols: Readonly<Record<string, SymbolFigures>>,
  ledger: readonly Gap[],
  date: string,
): DayManifest {
  const missing = ledger.filter((gap) => gap.status !== 'filled' && touches(gap, symbols[gap.symbol], date))
  const isUnexplained = Object.entries(symbols).some(([symbol, figures]) => {
    const own = missing.filter((gap) => gap.symbol === symbol)
    // A window does not say which ids it has.
    if (own.some(({ from_id }) => from_id === null)) return false
    return (figures.missingIds ?? 0) > own.reduce((sum, gap) => sum + overlap(gap, figures), 0)
  })
  const verdict = isUnexplained ? 'unexplained' : missing.length > 0 ? 'incomplete' : 'complete'
  return { symbols: { ...symbols }, missing, verdict }
}

/** The days that a revision since a time may have changed, by table; in milliseconds. */
export function changedDays(ledger: Ledger, sinceMs: number): Array<{ table: string; date: string }> {
  const days = [...ledger].flatMap(([table, gaps]) =>
    gaps
      .filter(({ updated_at }) => updated_at >= sinceMs)
      .flatMap(({ from_time, to_time, detected_at }) =>
        datesFrom(from_time ?? to_time ?? detected_at, to_time ?? from_time ?? detected_at).map(
          (date) => `${table}/${date}`,
        ),
      ),
  )
  return [...new Set(days)].map((day) => {
    const [table = '', date = ''] = day.split('/')
    return { table, date }
  })
}

/** UTC days from one time to another. A window of an outage is hours long; more than a year is an error. */
function datesFrom(fromMs: number, toMs: number): string[] {
  const first = Math.floor(fromMs / DAY_MS)
  const count = Math.min(MAX_DAYS, Math.floor(toMs / DAY_MS) - first + 1)
  return Array.from({ length: Math.max(0, count) }, (_, i) =>
    new Date((first + i) * DAY_MS).toISOString().slice(0, 10),
  )
}

/** Whether a gap is of a day: by its times, or else by the ids of the day's rows. */
function touches(gap: Gap, figures: SymbolFigures | undefined, date: string): boolean {
  const fromMs = Date.parse(date)
  const [from, to] = [gap.from_time ?? gap.to_time, gap.to_time ?? gap.from_time]
  if (from !== null && to !== null) return from < fromMs + DAY_MS && to >= fromMs
  if (gap.from_id === null || gap.to_id === null || figures === undefined)
    return gap.detected_at >= fromMs && gap.detected_at < fromMs + DAY_MS
  return gap.to_id >= figures.firstId - 1 && gap.from_id <= figures.lastId + 1
}

function overlap({ from_id, to_id }: Gap, { firstId, lastId }: SymbolFigures): number {
  if (from_id === null || to_id === null) return 0
  return Math.max(0, Math.min(to_id, lastId) - Math.max(from_id, firstId) + 1)
}
