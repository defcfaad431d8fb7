import type { SymbolRows } from '../foundation/archive/archived-chunks.ts'
import type { ArchivedDay } from '../foundation/archive/archived-days.ts'
import { NO_ROWS, plus, type RowFigures } from '../foundation/archive/row-hash.ts'

/** Rows of a symbol that the two stores have differently. */
export interface SymbolDifference {
  readonly table: string
  readonly date: string
  readonly symbol: string
  /** Rows of the tables, with those that were dropped before. */
  readonly inTables: number
  readonly inArchive: number
}

/**
 * Compares the rows of a chunk's days with what the archive announced.
 *
 * @param stored rows in the tables, and rows that were dropped from them before
 */
export function compareDays(
  stored: readonly SymbolRows[],
  announced: ReadonlyArray<Pick<ArchivedDay, 'table' | 'date' | 'symbols'>>,
): SymbolDifference[] {
  const places = new Map<string, Pick<SymbolRows, 'table' | 'date' | 'symbol'>>()
  const [ours, theirs] = [new Map<string, RowFigures>(), new Map<string, RowFigures>()]
  const add = (to: Map<string, RowFigures>, { rows, hash, ...place }: SymbolRows) => {
    const key = JSON.stringify([place.table, place.date, place.symbol])
    places.set(key, place)
    to.set(key, plus(to.get(key) ?? NO_ROWS, { rows, hash }))
  }
  for (const one of stored) add(ours, one)
  for (const { table, date, symbols } of announced)
    for (const [symbol, [rows, hash]] of Object.entries(symbols))
      add(theirs, { table, date, symbol, rows, hash: BigInt(hash) })
  return [...places].flatMap(([key, place]) => {
    const [own, their] = [ours.get(key) ?? NO_ROWS, theirs.get(key) ?? NO_ROWS]
    if (own.rows === their.rows && own.hash === their.hash) return []
    return [{ ...place, inTables: own.rows, inArchive: their.rows }]
  })
}

/** Names a difference, such as `raw_trades 2026-01-31 BTCUSDT: 2 rows more in the tables`. */
export function describeDifference({ table, date, symbol, inTables, inArchive }: SymbolDifference): string {
  const more = (rows: number) => `${rows} ${rows === 1 ? 'row' : 'rows'} more`
  const what =
    inTables > inArchive
      ? `${more(inTables - inArchive)} in the tables`
      : inTables < inArchive
        ? `${more(inArchive - inTables)} in the archive`
        : `the same number of rows (${inTables}), with other values`
  return `${table} ${date} ${symbol}: ${what}`
}
