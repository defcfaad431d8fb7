import type { DuckDb } from '../../foundation/archive/duckdb.ts'
import type { EventType } from '../../foundation/market/event.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import type { DepthRows } from '../verify/depth-rows.ts'
import type { StoredUntil } from '../verify/watermark.ts'
import type { Day } from './day.ts'
import type { Manifest } from './manifest.ts'
import type { EngineRows } from './row-files.ts'

/** What days are exported from: the tables or the archive. All of it is of one moment. */
export interface DayStore {
  /** Answers the statements of the ledger and the audit. */
  readonly connection: Queryable
  readonly storedUntil: StoredUntil
  /** The levels of order books; null if no audit reads them. */
  readonly depthRows: DepthRows | null
  /** Writes the files. */
  readonly duckDb: DuckDb
  facts(day: Day): Promise<Pick<Manifest, 'source' | 'timeUnit' | 'dayIsOver'> & { readonly takenAt: Date }>
  /** Provides the rows of a type and day to the engine, until it is called again. */
  rowsOf(
    type: EventType,
    symbol: string,
    day: Day,
    onProgress: (type: EventType, rows: number) => void,
  ): Promise<EngineRows>
}
