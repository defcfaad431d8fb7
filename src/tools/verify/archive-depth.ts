import type { ArchiveSnapshot } from '../../foundation/archive/archive-snapshot.ts'
import { DIFF_COLUMNS, DIFF_ORDER, DiffRows } from '../../foundation/archive/archived-books.ts'
import { type KeyframeName, keyframesOf, readKeyframe } from '../../foundation/archive/archived-keyframes.ts'
import { type DuckDb, quoted } from '../../foundation/archive/duckdb.ts'
import { LEVEL_COLUMNS, LevelRows } from '../../foundation/archive/level-rows.ts'
import { ARCHIVE_TABLES } from '../../foundation/archive/tables.ts'
import { snapshotHorizon } from '../../foundation/order-book/book-rows.ts'
import { type DepthRows, PART_CHANGES, type StoredAnchor } from './depth-rows.ts'

const DEPTH = ARCHIVE_TABLES.depth.name
const SNAPSHOTS = ARCHIVE_TABLES.depthSnapshot.name

/** The levels of an archive, which has a row for each. Its keyframes are no rows. */
export function archivedRows(duckDb: DuckDb, snapshot: ArchiveSnapshot): DepthRows {
  /** Rows of whole milliseconds around two times. */
  const between = (table: string, symbol: string, fromUs: number, toUs: number) =>
    snapshot.relation(table, {
      symbols: [symbol],
      fromMs: Math.floor(fromUs / 1000),
      toMs: Math.floor(toUs / 1000) + 1,
    })
  const names = new WeakMap<StoredAnchor, KeyframeName>()
  return {
    partChanges: PART_CHANGES,
    async *diffs({ symbol, epoch, afterId, upToId, fromUs, toUs }) {
      const rows = new DiffRows(epoch)
      const query = `SELECT ${DIFF_COLUMNS}
        FROM (${await between(DEPTH, symbol, fromUs, toUs)})
        WHERE epoch = ${epoch} AND last_update_id > ${afterId} AND last_update_id <= ${upToId}
        ORDER BY ${DIFF_ORDER}`
      for await (const columns of duckDb.columns(query)) yield rows.read(columns)
      yield rows.end()
    },
    keyframes: async (symbol, epoch) =>
      (await keyframesOf(snapshot.store, symbol))
        .filter((one) => one.epoch === epoch)
        .map((name) => {
          const { lastUpdateId, receivedUs } = name
          const stored = { symbol, epoch, lastUpdateId, receivedUs, isDerived: true }
          names.set(stored, name)
          return stored
        }),
    async anchor(stored) {
      const { symbol, epoch, lastUpdateId, receivedUs } = stored
      const name = names.get(stored)
      if (name !== undefined) return readKeyframe(snapshot.store, name)
      const from = `(${await between(SNAPSHOTS, symbol, receivedUs, receivedUs)})
        WHERE symbol = ${quoted(symbol)} AND epoch = ${epoch} AND last_update_id = ${lastUpdateId} AND epoch_us(ingestion_timestamp) = ${receivedUs}`
      const [first] = await duckDb.rows<{ limit: number }>(
        `SELECT level_limit AS "limit" FROM ${from} LIMIT 1`,
      )
      if (first === undefined) throw new Error(`The snapshot ${symbol} ${epoch} ${lastUpdateId} is gone`)
      const rows = new LevelRows()
      rows.begin(lastUpdateId, lastUpdateId)
      for await (const columns of duckDb.columns(`SELECT ${LEVEL_COLUMNS} FROM ${from} ORDER BY side, level`))
        rows.addAll(columns, 0)
      const { bids, asks } = rows
      const { limit } = first
      return {
        ...{ epoch, lastUpdateId, receivedUs, bids, asks, derivedFrom: null },
        bidHorizon: snapshotHorizon(bids, limit),
        askHorizon: snapshotHorizon(asks, limit),
      }
    },
  }
}

/** The rows of the database's tables without their levels, for the statements of the checks. */
export function depthViews(diffs: string, snapshots: string): string[] {
  return [
    // The first level of each side; one without levels has no number.
    `CREATE OR REPLACE TEMP VIEW depth_updates AS
     SELECT DISTINCT event_time, symbol, epoch, first_update_id, last_update_id, ingestion_timestamp FROM (${diffs}) WHERE coalesce("level", 1) = 1`,
    `CREATE OR REPLACE TEMP VIEW depth_snapshots AS
     SELECT DISTINCT ingestion_timestamp, symbol, epoch, last_update_id, 'rest' AS kind FROM (${snapshots}) WHERE coalesce("level", 1) = 1`,
  ]
}
