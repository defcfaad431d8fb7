import { isoOfUs } from '../../foundation/market/time-unit.ts'
import type { Anchor, BookDiff } from '../../foundation/order-book/book-rows.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import {
  PACKED_ANCHOR,
  PACKED_DIFF,
  type PackedAnchor,
  type PackedDiff,
  unpackedAnchor,
  unpackedDiffs,
} from '../../foundation/store/depth-rows.ts'

/** A part of the changes of an order book. Times are microseconds since the Unix epoch. */
export interface DepthPart {
  readonly symbol: string
  readonly epoch: number
  /** Last update ids above this one, up to `upToId`. */
  readonly afterId: number
  readonly upToId: number
  /** The event times of all of them, both included. */
  readonly fromUs: number
  readonly toUs: number
}

/** A snapshot, or a keyframe. */
export interface StoredAnchor {
  readonly symbol: string
  readonly epoch: number
  readonly lastUpdateId: number
  readonly isDerived: boolean
  readonly receivedUs: number
}

export const PART_CHANGES = 5000

/** The levels of the stored rows, which each store keeps in its own form. */
export interface DepthRows {
  /** So many changes are one part, which is in memory with the quotes beside it. */
  readonly partChanges: number
  /**
   * Yields the diffs of a part in the order of last and then first update id. A diff and its levels are
   * valid until the next one.
   */
  diffs(part: DepthPart): AsyncIterable<Iterable<BookDiff>>
  /** Returns the keyframes of a book, in the order of their ids, if they are not among the stored rows. */
  keyframes?(symbol: string, epoch: number): Promise<StoredAnchor[]>
  /**
   * Reads an anchor that is stored. Null: a keyframe beside the rows that is gone or damaged, and so is not used.
   *
   * @param key of a row, or one of {@link keyframes}
   */
  anchor(key: StoredAnchor): Promise<Anchor | null>
}

/** SQL: a time in microseconds since the Unix epoch, which both engines compute exactly. */
export const usOf = (time: string) => `CAST(round(extract(epoch FROM ${time}) * 1000000) AS float8)`

const DIFFS = `SELECT ${PACKED_DIFF} FROM depth_updates
  WHERE symbol = $1 AND epoch = $2 AND last_update_id > $3 AND last_update_id <= $4
    AND event_time >= $5::timestamptz AND event_time <= $6::timestamptz
  ORDER BY last_update_id, first_update_id, event_time`

const ANCHOR = `SELECT ${PACKED_ANCHOR} FROM depth_snapshots
  WHERE symbol = $1 AND epoch = $2 AND last_update_id = $3 AND kind = $4 AND ingestion_timestamp = $5::timestamptz`

/** The rows of the database, with packed levels. */
export function packedRows(connection: Queryable): DepthRows {
  return {
    partChanges: PART_CHANGES,
    async *diffs({ symbol, epoch, afterId, upToId, fromUs, toUs }) {
      const values = [symbol, epoch, afterId, upToId, isoOfUs(fromUs), isoOfUs(toUs)]
      yield unpackedDiffs((await connection.query<PackedDiff>(DIFFS, values)).rows)
    },
    async anchor({ symbol, epoch, lastUpdateId, isDerived, receivedUs }) {
      const values = [symbol, epoch, lastUpdateId, isDerived ? 'derived' : 'rest', isoOfUs(receivedUs)]
      const [row] = (await connection.query<PackedAnchor>(ANCHOR, values)).rows
      if (row === undefined) throw new Error(`The snapshot ${values.join(' ')} is gone`)
      return unpackedAnchor(row)
    },
  }
}
