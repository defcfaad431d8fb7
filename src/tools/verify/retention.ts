import { counted } from '../../foundation/telemetry/plural.ts'
import { firstCases, type Remark, readCases, unchecked } from './findings.ts'
import { type CheckContext, inScope, isoText, scopeValues, TABLE_NAMES, TABLES, type Table } from './scope.ts'

/** Time before which retention has dropped rows, in ms since the Unix epoch; null if none. */
export type Floors = Readonly<Record<Table, number | null>>

/**
 * Retention drops whole chunks and records how far in `meta`, as `retention:TABLE` (`0002_chunks.sql`).
 * Older rows are gone, not missing. Rows of such a day may come back from a backfill or a dead
 * letter. They are isolated, and do not count as first rows.
 */
export async function readFloors({ connection }: CheckContext): Promise<Floors> {
  const { rows } = await connection.query<{ name: string; floor: Date }>(
    'SELECT key AS name, value::timestamptz AS floor FROM meta WHERE key = ANY($1::text[])',
    [TABLE_NAMES.map((table) => `retention:${table}`)],
  )
  const floorOf = (table: Table) =>
    rows.find(({ name }) => name === `retention:${table}`)?.floor.getTime() ?? null
  return {
    trades: floorOf('trades'),
    book_ticker: floorOf('book_ticker'),
    depth_updates: floorOf('depth_updates'),
    depth_snapshots: floorOf('depth_snapshots'),
  }
}

/** The same context without the rows before the floor. */
export function above(context: CheckContext, floorMs: number | null): CheckContext {
  if (!isWithin(context, floorMs)) return context
  return { ...context, scope: { ...context.scope, fromMs: floorMs } }
}

function isWithin({ scope: { fromMs } }: CheckContext, floorMs: number | null): floorMs is number {
  return floorMs !== null && (fromMs === null || fromMs < floorMs)
}

function belowSql(table: Table, order: string): string {
  const { time, id, type, epoch } = TABLES[table]
  return `WITH below AS (
      SELECT symbol, ${type} AS event_type, NULL::integer AS epoch, 'below' AS kind, ${id} AS from_id, ${id} AS to_id, ${time} AS time,
        ${epoch} AS own_epoch, concat('at ', ${isoText(time)}, CASE WHEN ${epoch} > 0 THEN concat(', epoch ', ${epoch}) END) AS detail
      FROM ${table} WHERE ${inScope(time)}),
    ${firstCases('below', '$4', order)}`
}

const BELOW: Readonly<Record<Table, string>> = {
  trades: belowSql('trades', 'own_epoch, from_id'),
  book_ticker: belowSql('book_ticker', 'time, from_id'),
  depth_updates: belowSql('depth_updates', 'own_epoch, from_id'),
  depth_snapshots: belowSql('depth_snapshots', 'own_epoch, from_id'),
}

/** Reports how far retention has gone, and the rows that exist below. */
export async function readBelow(
  context: CheckContext,
  floors: Floors,
  tables: readonly Table[],
): Promise<Remark[]> {
  const { connection, scope, limit } = context
  const remarks: Remark[] = []
  for (const table of tables) {
    const floorMs = floors[table]
    if (!isWithin(context, floorMs)) continue
    const before = new Date(floorMs).toISOString()
    remarks.push(unchecked(`rows of ${table} before ${before}: retention has dropped them`))
    const below = { ...scope, toMs: Math.min(floorMs, scope.toMs ?? floorMs) }
    for (const cases of await readCases(connection, BELOW[table], [...scopeValues(below), limit])) {
      const rows = counted(cases.count, `${cases.eventType} row`)
      remarks.push(unchecked(`${rows} below retention: stored after the day was dropped`, cases))
    }
  }
  return remarks
}
