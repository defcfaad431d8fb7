import { isoOfUs } from '../market/time-unit.ts'
import type { Anchor, AnchorKey, BookDiff, DiffKey } from '../order-book/book-rows.ts'
import { LevelColumns, packColumns } from '../order-book/level-columns.ts'
import type { Queryable } from './database.ts'

/*
 * Rows of depth_updates and depth_snapshots as order books take them. Ids find rows; times only keep other
 * chunks out of a plan, so their bounds are a day wider than any clock is wrong.
 */

const us = (column: string) => `(extract(epoch FROM ${column}) * 1000000)::float8`

/** The columns of a {@link DiffKey} in depth_updates. */
export const DIFF_KEY = `epoch, first_update_id::float8 AS "firstUpdateId", last_update_id::float8 AS "lastUpdateId",
  ${us('event_time')} AS "eventTimeUs", ${us('ingestion_timestamp')} AS "receivedUs"`

/** The columns of a {@link PackedDiff} in depth_updates. */
export const PACKED_DIFF = `${DIFF_KEY}, bids, asks`

/** A diff with packed levels (`packed-levels.ts`). */
export interface PackedDiff extends DiffKey {
  readonly bids: Buffer
  readonly asks: Buffer
}

/** The columns of an {@link AnchorKey} in depth_snapshots. */
export const ANCHOR_KEY = `epoch, last_update_id::float8 AS "lastUpdateId", ${us('ingestion_timestamp')} AS "receivedUs"`

/** The columns of a {@link PackedAnchor} in depth_snapshots. */
export const PACKED_ANCHOR = `${ANCHOR_KEY}, bids, asks, bid_horizon::text AS "bidHorizon", ask_horizon::text AS "askHorizon",
  anchor_update_id::float8 AS "fromId", ${us('anchor_timestamp')} AS "fromUs"`

/** A snapshot, or a keyframe, which names the snapshot that it was derived from. */
export interface PackedAnchor extends AnchorKey {
  readonly bids: Buffer
  readonly asks: Buffer
  readonly bidHorizon: string | null
  readonly askHorizon: string | null
  readonly fromId: number | null
  readonly fromUs: number | null
}

/** A diff and its levels are valid until the next one. */
export function* unpackedDiffs(rows: readonly PackedDiff[]): Generator<BookDiff> {
  const [bids, asks] = [new LevelColumns(), new LevelColumns()]
  for (const { bids: packedBids, asks: packedAsks, ...key } of rows) {
    bids.read(packedBids)
    asks.read(packedAsks)
    yield { ...key, bids, asks }
  }
}

export function unpackedAnchor({
  bids: packedBids,
  asks: packedAsks,
  fromId,
  fromUs,
  ...anchor
}: PackedAnchor): Anchor {
  const [bids, asks] = [new LevelColumns(), new LevelColumns()]
  bids.read(packedBids)
  asks.read(packedAsks)
  const isDerived = fromId !== null && fromUs !== null
  const derivedFrom = isDerived ? { epoch: anchor.epoch, lastUpdateId: fromId, receivedUs: fromUs } : null
  return { ...anchor, bids, asks, derivedFrom }
}

/** Place of an anchor in the order of its symbol. */
export interface AnchorPlace {
  readonly epoch: number
  readonly lastUpdateId: number
}

/** Returns the places of the first two anchors of a symbol at or above one. */
export async function anchorsFrom(
  connection: Queryable,
  symbol: string,
  { epoch, lastUpdateId }: AnchorPlace,
): Promise<AnchorPlace[]> {
  const { rows } = await connection.query<AnchorPlace>(
    `SELECT DISTINCT epoch, last_update_id::float8 AS "lastUpdateId" FROM depth_snapshots
     WHERE symbol = $1 AND (epoch, last_update_id) >= ($2, $3) ORDER BY 1, 2 LIMIT 2`,
    [symbol, epoch, lastUpdateId],
  )
  return rows
}

/** Returns the place of the newest keyframe of a symbol; null if it has none. */
export async function newestKeyframe(connection: Queryable, symbol: string): Promise<AnchorPlace | null> {
  const { rows } = await connection.query<AnchorPlace>(
    `SELECT epoch, last_update_id::float8 AS "lastUpdateId" FROM depth_snapshots
     WHERE symbol = $1 AND kind = 'derived' ORDER BY epoch DESC, last_update_id DESC LIMIT 1`,
    [symbol],
  )
  return rows[0] ?? null
}

export async function symbolsWithSnapshots(connection: Queryable): Promise<string[]> {
  const { rows } = await connection.query<{ symbol: string }>(
    `SELECT DISTINCT symbol FROM depth_snapshots WHERE kind = 'rest' ORDER BY symbol`,
  )
  return rows.map(({ symbol }) => symbol)
}

/** Reads an anchor: of those with the same update id the snapshot with the most levels, or else a keyframe. */
export async function readAnchor(
  connection: Queryable,
  symbol: string,
  { epoch, lastUpdateId }: AnchorPlace,
): Promise<Anchor | null> {
  const { rows } = await connection.query<PackedAnchor>(
    `SELECT ${PACKED_ANCHOR} FROM depth_snapshots WHERE symbol = $1 AND epoch = $2 AND last_update_id = $3
     ORDER BY kind DESC, level_limit DESC, ingestion_timestamp LIMIT 1`,
    [symbol, epoch, lastUpdateId],
  )
  return rows[0] === undefined ? null : unpackedAnchor(rows[0])
}

/** Stores a keyframe, unless it exists. @returns whether it is new */
export async function insertKeyframe(
  connection: Queryable,
  symbol: string,
  { epoch, lastUpdateId, receivedUs, bids, asks, bidHorizon, askHorizon, derivedFrom }: Anchor,
  eventTimeUs: number,
): Promise<boolean> {
  if (derivedFrom === null) throw new TypeError('A keyframe is derived from a snapshot')
  const { rowCount } = await connection.query(
    `INSERT INTO depth_snapshots (ingestion_timestamp, symbol, epoch, last_update_id, kind, bids, asks, bid_horizon, ask_horizon,
       event_time, anchor_update_id, anchor_timestamp)
     VALUES ($1, $2, $3, $4, 'derived', $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`,
    [
      ...[isoOfUs(receivedUs), symbol, epoch, lastUpdateId, packColumns(bids), packColumns(asks)],
      ...[bidHorizon, askHorizon, isoOfUs(eventTimeUs), derivedFrom.lastUpdateId],
      isoOfUs(derivedFrom.receivedUs),
    ],
  )
  return rowCount > 0
}

/** Whether a symbol has so many diffs between an update id and another; null: there is no other. */
export async function hasDiffs(
  connection: Queryable,
  symbol: string,
  { epoch, lastUpdateId }: AnchorPlace,
  receivedUs: number,
  below: number | null,
  count: number,
): Promise<boolean> {
  const { rowCount } = await connection.query(
    `SELECT FROM depth_updates WHERE symbol = $1 AND epoch = $2 AND last_update_id > $3 AND last_update_id < $4
       AND event_time >= $5::timestamptz - interval '1 day'
     ORDER BY last_update_id OFFSET $6 LIMIT 1`,
    [symbol, epoch, lastUpdateId, below ?? Number.MAX_SAFE_INTEGER, isoOfUs(receivedUs), count - 1],
  )
  return rowCount > 0
}

/**
 * Reads diffs of a symbol and epoch above an update id, in the order in which a book takes them, in portions.
 * A diff and its levels are valid until the next one.
 *
 * @param receivedUs of the anchor with this update id
 */
export async function* diffsAfter(
  connection: Queryable,
  symbol: string,
  { epoch, lastUpdateId }: AnchorPlace,
  receivedUs: number,
  portion: number,
): AsyncGenerator<BookDiff> {
  const since = isoOfUs(receivedUs)
  for (let after: readonly [last: number, first: number] = [lastUpdateId, Number.MAX_SAFE_INTEGER]; ; ) {
    const { rows } = await connection.query<PackedDiff>(
      `SELECT ${PACKED_DIFF} FROM depth_updates
       WHERE symbol = $1 AND epoch = $2 AND (last_update_id, first_update_id) > ($3, $4)
         AND event_time >= $5::timestamptz - interval '1 day'
       ORDER BY last_update_id, first_update_id LIMIT $6`,
      [symbol, epoch, ...after, since, portion],
    )
    yield* unpackedDiffs(rows)
    const newest = rows.at(-1)
    if (newest === undefined || rows.length < portion) return
    after = [newest.lastUpdateId, newest.firstUpdateId]
  }
}
