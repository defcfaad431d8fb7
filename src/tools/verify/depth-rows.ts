import { isoOfUs } from '../../foundation/market/time-unit.ts'
import type { Anchor, BookDiff } from '../../foundation/order-book/book-rows.ts'
import { LevelColumns } from '../../foundation/order-book/level-columns.ts'
import type { Queryable } from '../../foundation/store/database.ts'

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
  /** Reads an anchor that is stored. */
  anchor(key: StoredAnchor): Promise<Anchor>
}

/** SQL: a time in microseconds since the Unix epoch, which both engines compute exactly. */
export const usOf = (time: string) => `CAST(round(extract(epoch FROM ${time}) * 1000000) AS float8)`

interface PackedDiff {
  readonly firstUpdateId: number
  readonly lastUpdateId: number
  readonly eventTimeUs: number
  readonly receivedUs: number
  readonly bids: Buffer
  readonly asks: Buffer
}

const DIFFS = `SELECT first_update_id::float8 AS "firstUpdateId", last_update_id::float8 AS "lastUpdateId", ${usOf('event_time')} AS "eventTimeUs",
    ${usOf('ingestion_timestamp')} AS "receivedUs", bids, asks
  FROM depth_updates WHERE symbol = $1 AND epoch = $2 AND last_update_id > $3 AND last_update_id <= $4
    AND event_time >= $5::timestamptz AND event_time <= $6::timestamptz
  ORDER BY last_update_id, first_update_id, event_time`

interface PackedAnchor {
  readonly bids: Buffer
  readonly asks: Buffer
  readonly bidHorizon: string | null
  readonly askHorizon: string | null
  readonly derivedId: number | null
  readonly derivedUs: number | null
}

const ANCHOR = `SELECT bids, asks, bid_horizon::text AS "bidHorizon", ask_horizon::text AS "askHorizon", anchor_update_id::float8 AS "derivedId",
    ${usOf('anchor_timestamp')} AS "derivedUs"
  FROM depth_snapshots WHERE symbol = $1 AND epoch = $2 AND last_update_id = $3 AND kind = $4 AND ingestion_timestamp = $5::timestamptz`

/** The rows of the database, with packed levels. */
export function packedRows(connection: Queryable): DepthRows {
  const bids = new LevelColumns()
  const asks = new LevelColumns()
  function* unpacked(epoch: number, rows: readonly PackedDiff[]): Generator<BookDiff> {
    for (const row of rows) {
      bids.read(row.bids)
      asks.read(row.asks)
      yield { ...row, epoch, bids, asks }
    }
  }
  return {
    partChanges: PART_CHANGES,
    async *diffs({ symbol, epoch, afterId, upToId, fromUs, toUs }) {
      const values = [symbol, epoch, afterId, upToId, isoOfUs(fromUs), isoOfUs(toUs)]
      yield unpacked(epoch, (await connection.query<PackedDiff>(DIFFS, values)).rows)
    },
    async anchor({ symbol, epoch, lastUpdateId, isDerived, receivedUs }) {
      const values = [symbol, epoch, lastUpdateId, isDerived ? 'derived' : 'rest', isoOfUs(receivedUs)]
      const [row] = (await connection.query<PackedAnchor>(ANCHOR, values)).rows
      if (row === undefined) throw new Error(`The snapshot ${values.join(' ')} is gone`)
      const { bidHorizon, askHorizon, derivedId, derivedUs } = row
      const [ownBids, ownAsks] = [new LevelColumns(), new LevelColumns()]
      ownBids.read(row.bids)
      ownAsks.read(row.asks)
      return {
        ...{ epoch, lastUpdateId, receivedUs, bids: ownBids, asks: ownAsks, bidHorizon, askHorizon },
        derivedFrom:
          derivedId === null ? null : { epoch, lastUpdateId: derivedId, receivedUs: derivedUs ?? receivedUs },
      }
    },
  }
}
