import { z } from 'zod'
import { EVENT_TYPES, type EventType } from '../market/event.ts'
import { countIds, type IdRange, subtract } from '../market/id-ranges.ts'
import type { DuckDb } from './duckdb.ts'
import { ARCHIVE_TABLES } from './tables.ts'

/*
 * What a published day lacks, and why, as its list says. `verify --archive` is the audit; this is
 * what the files and the ledger said when the list was made.
 */

const DAY_MS = 86_400_000
/** A window of an outage is hours long; more than a year is an error. */
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

export interface Ledger {
  /** By table: the rows that are not filled, in their last revisions. */
  readonly gaps: ReadonlyMap<string, readonly Gap[]>
  /** The days about which new revisions may say something else. A date of null means any day. */
  readonly changed: ReadonlyArray<{ readonly table: string; readonly date: string | null }>
}

const FIGURES = z.object({
  /** Counts how often the exchange has restarted the ids; 0 for quotes. */
  epoch: z.int().min(0),
  /** Levels, in a table of depth. */
  rows: z.int(),
  firstId: z.int(),
  lastId: z.int(),
  /** Ids between the first and the last that no row covers; null for quotes, whose ids have holes, and snapshots. */
  missingIds: z.int().min(0).nullable(),
})

/** The ids of a symbol and epoch in a day. */
export type DayFigures = z.infer<typeof FIGURES>

export const DAY_MANIFEST = {
  /** In the order of their epochs: nearly always one. */
  symbols: z.record(z.string(), z.array(FIGURES)),
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
export async function readGaps(duckDb: DuckDb, relation: string): Promise<Ledger['gaps']> {
  const number = (column: string) => `${column}::DOUBLE AS ${column}`
  const time = (column: string) => `epoch_ms(${column})::DOUBLE AS ${column}`
  const rows = await duckDb.rows<Gap & { event_type: string }>(
    `SELECT gap_id, revision, symbol, event_type, epoch, ${number('from_id')}, ${number('to_id')}, ${time('from_time')},
       ${time('to_time')}, cause, status, reason, ${time('detected_at')}, ${time('updated_at')}
     FROM (${relation}) WHERE status <> 'filled' ORDER BY gap_id`,
  )
  return new Map(
    EVENT_TYPES.map((type) => [
      ARCHIVE_TABLES[type].name,
      rows.filter(({ event_type }) => event_type === type).map((row) => MISSING.parse(row)),
    ]),
  )
}

/**
 * Returns the days of all revisions of the gaps that have new ones: also those that a gap touched before.
 *
 * @param all reads the files of all revisions
 * @param added reads those of the new ones
 */
export async function readChangedDays(
  duckDb: DuckDb,
  all: string,
  added: string,
): Promise<Ledger['changed']> {
  const ms = (field: string) => `(json->>'$.${field}')::BIGINT`
  const rows = await duckDb.rows<{ event_type: EventType; day: number | null }>(
    `SELECT DISTINCT event_type, unnest(CASE WHEN "from" IS NULL THEN [NULL]
       ELSE range("from" // ${DAY_MS}, least("to" // ${DAY_MS}, "from" // ${DAY_MS} + ${MAX_DAYS}) + 1) END)::INTEGER AS day
     FROM (SELECT json->>'$.event_type' AS event_type, coalesce(${ms('from_time')}, ${ms('to_time')}) AS "from",
             coalesce(${ms('to_time')}, ${ms('from_time')}) AS "to"
           FROM ${all} WHERE json->>'$.gap_id' IN (SELECT json->>'$.gap_id' FROM ${added}))
     ORDER BY ALL`,
  )
  return rows.map(({ event_type, day }) => ({
    table: ARCHIVE_TABLES[event_type].name,
    date: day === null ? null : new Date(day * DAY_MS).toISOString().slice(0, 10),
  }))
}

/** Compares the figures of a day with the ledger. */
export function dayManifest(
  symbols: DayManifest['symbols'],
  ledger: readonly Gap[],
  date: string,
): DayManifest {
  const missing = ledger.filter((gap) => touches(gap, symbols[gap.symbol] ?? [], date))
  const ofSymbol = Map.groupBy(missing, ({ symbol }) => symbol)
  const isUnexplained = Object.entries(symbols).some(([symbol, epochs]) => {
    const own = ofSymbol.get(symbol) ?? []
    // A window does not say which ids it has.
    if (own.some(({ from_id }) => from_id === null)) return false
    return epochs.some((figures) => (figures.missingIds ?? 0) > knownIds(own, figures))
  })
  const verdict = isUnexplained ? 'unexplained' : missing.length > 0 ? 'incomplete' : 'complete'
  return { symbols: { ...symbols }, missing, verdict }
}

/** Whether a gap is of a day: by its times, or else by the ids of the day's rows. */
function touches(gap: Gap, epochs: readonly DayFigures[], date: string): boolean {
  const fromMs = Date.parse(date)
  const [from, to] = [gap.from_time ?? gap.to_time, gap.to_time ?? gap.from_time]
  if (from !== null && to !== null) return from < fromMs + DAY_MS && to >= fromMs
  const { from_id, to_id } = gap
  const figures = epochs.find(({ epoch }) => epoch === gap.epoch)
  if (from_id === null || to_id === null || figures === undefined)
    return gap.detected_at >= fromMs && gap.detected_at < fromMs + DAY_MS
  return to_id >= figures.firstId - 1 && from_id <= figures.lastId + 1
}

/** How many ids between the first and the last of a day are in rows of the ledger. */
function knownIds(gaps: readonly Gap[], { epoch, firstId, lastId }: DayFigures): number {
  const known = gaps.flatMap((gap): IdRange[] => {
    const { from_id, to_id } = gap
    return gap.epoch !== epoch || from_id === null || to_id === null ? [] : [{ from: from_id, to: to_id }]
  })
  const all = [{ from: firstId, to: lastId }]
  return countIds(all) - countIds(subtract(all, known))
}
