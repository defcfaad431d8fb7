import { isoOfUs } from '../market/time-unit.ts'
import type { BookStore, Instant } from '../order-book/book-at.ts'
import type { Anchor, AnchorKey, BookDiff, DiffKey } from '../order-book/book-rows.ts'
import type { Queryable } from './database.ts'
import {
  ANCHOR_KEY,
  DIFF_KEY,
  PACKED_ANCHOR,
  PACKED_DIFF,
  type PackedAnchor,
  type PackedDiff,
  unpackedAnchor,
  unpackedDiffs,
} from './depth-rows.ts'

/** Diffs that one statement returns. */
const BATCH = 5000
/** How far event times of neighbouring diffs may be out of order. */
const DISORDER = "interval '1 minute'"
/** How far a receipt may be before the event time. */
const CLOCKS = "interval '1 hour'"
/** Where a row is looked for first: a diff comes every 100 ms, a snapshot every few hours. */
const NEAR_US = { depth_updates: 3_600_000_000, depth_snapshots: 86_400_000_000 }
/** Ids find rows. Times only keep other chunks out of a plan, so their bounds are wider than any clock is wrong. */
const DAY = "interval '1 day'"
/** TimescaleDB cannot add a day to infinity. */
const [EARLIEST, LATEST] = ['1970-01-02', '9999-12-30']

const IN_ORDER = 'epoch, last_update_id, first_update_id'
const BACKWARDS = 'epoch DESC, last_update_id DESC, first_update_id DESC'
const INSTANT = '$2::timestamptz'

/** `event_time` by which a book is looked for, by event time and by receipt. */
const NEWEST_BY = {
  'event time': `event_time <= ${INSTANT}`,
  receipt: `ingestion_timestamp <= ${INSTANT} AND event_time <= ${INSTANT} + ${CLOCKS}`,
}

const DIFFS = `SELECT ${PACKED_DIFF} FROM depth_updates
  WHERE symbol = $1 AND epoch = $2 AND (last_update_id, first_update_id) > ($3::bigint, $4::bigint) AND last_update_id <= $5::bigint
    AND event_time >= $6::timestamptz - ${DAY} AND event_time <= $7::timestamptz + ${DAY}
  ORDER BY last_update_id, first_update_id LIMIT ${BATCH}`

/** The order books of a symbol in the database, as the statements of one connection see them. */
export class StoredBooks implements BookStore {
  readonly #connection: Queryable
  readonly #symbol: string
  /** The last diff of {@link diffsAround}, up to which {@link diffsFrom} reads. */
  #last: DiffKey | null = null
  /** The anchor of {@link anchorBefore}, after which the diffs are read. */
  #anchor: AnchorKey | null = null

  constructor(connection: Queryable, symbol: string) {
    this.#connection = connection
    this.#symbol = symbol
  }

  async diffsAround(instant: Instant): ReturnType<BookStore['diffsAround']> {
    const last = await this.#lastUpTo(instant)
    this.#last = last
    if (last === null) return { last, next: await this.#diff('true', IN_ORDER) }
    const { epoch, lastUpdateId, firstUpdateId, eventTimeUs } = last
    const next = await this.#diff(
      `(epoch, last_update_id, first_update_id) > ($2, $3::bigint, $4::bigint) AND event_time >= $5::timestamptz - ${DAY}`,
      IN_ORDER,
      [epoch, lastUpdateId, firstUpdateId, isoOfUs(eventTimeUs)],
    )
    return { last, next }
  }

  async anchorBefore(epoch: number, updateId: number, except: readonly number[]): Promise<Anchor | null> {
    const [key] = await this.#nearest<AnchorKey & { kind: string }>(
      (since) =>
        `SELECT ${ANCHOR_KEY}, kind FROM depth_snapshots
         WHERE symbol = $1 AND epoch = $2 AND last_update_id <= $3::bigint AND ingestion_timestamp >= ${since}
           AND coalesce(anchor_update_id, last_update_id) <> ALL ('{${except.join()}}'::bigint[])
         ORDER BY last_update_id DESC, kind DESC, level_limit DESC, ingestion_timestamp LIMIT 1`,
      [epoch, updateId],
      this.#last === null ? null : this.#last.eventTimeUs - NEAR_US.depth_snapshots,
    )
    if (key === undefined) return null
    // Its levels are read only now: those of all would be unpacked from compressed chunks.
    const { rows } = await this.#connection.query<PackedAnchor>(
      `SELECT ${PACKED_ANCHOR}
       FROM depth_snapshots WHERE symbol = $1 AND epoch = $2 AND last_update_id = $3::bigint AND kind = $4
         AND ingestion_timestamp = $5::timestamptz LIMIT 1`,
      [this.#symbol, epoch, key.lastUpdateId, key.kind, isoOfUs(key.receivedUs)],
    )
    const [row] = rows
    if (row === undefined) return null
    const anchor = unpackedAnchor(row)
    this.#anchor = { epoch, lastUpdateId: anchor.lastUpdateId, receivedUs: anchor.receivedUs }
    return anchor
  }

  async snapshotFrom(epoch: number, updateId: number): Promise<AnchorKey | null> {
    const { rows } = await this.#connection.query<AnchorKey>(
      `SELECT ${ANCHOR_KEY} FROM depth_snapshots
       WHERE symbol = $1 AND epoch = $2 AND last_update_id >= $3::bigint AND kind = 'rest'
       ORDER BY last_update_id, ingestion_timestamp LIMIT 1`,
      [this.#symbol, epoch, updateId],
    )
    return rows[0] ?? null
  }

  async *diffsFrom(epoch: number, updateId: number): AsyncGenerator<Iterable<BookDiff>> {
    const upTo = this.#last?.epoch === epoch ? this.#last : null
    const anchor =
      this.#anchor?.epoch === epoch && this.#anchor.lastUpdateId <= updateId ? this.#anchor : null
    const bounds = [
      upTo?.lastUpdateId ?? Number.MAX_SAFE_INTEGER,
      anchor === null ? EARLIEST : isoOfUs(anchor.receivedUs),
      upTo === null ? LATEST : isoOfUs(upTo.eventTimeUs),
    ]
    let after = [updateId, -1]
    for (;;) {
      const { rows } = await this.#connection.query<PackedDiff>(DIFFS, [
        this.#symbol,
        epoch,
        ...after,
        ...bounds,
      ])
      yield unpackedDiffs(rows)
      const newest = rows.at(-1)
      if (newest === undefined || rows.length < BATCH) return
      after = [newest.lastUpdateId, newest.firstUpdateId]
    }
  }

  async #lastUpTo(instant: Instant): Promise<DiffKey | null> {
    if (instant.kind === 'update id') {
      const epoch = instant.epoch ?? (await this.#diff('true', BACKWARDS))?.epoch ?? 0
      return this.#diff('(epoch, last_update_id) <= ($2, $3::bigint)', BACKWARDS, [epoch, instant.updateId])
    }
    const isUpTo = NEWEST_BY[instant.kind]
    const [newest] = await this.#nearest<DiffKey>(
      (since) =>
        `SELECT ${DIFF_KEY} FROM depth_updates WHERE symbol = $1 AND ${isUpTo} AND event_time >= ${since} ORDER BY event_time DESC LIMIT 1`,
      [isoOfUs(instant.us)],
      instant.us - NEAR_US.depth_updates,
    )
    if (newest === undefined) return null
    const from = `$3::timestamptz - ${DISORDER}`
    return this.#diff(`${isUpTo} AND event_time >= ${from}`, BACKWARDS, [
      isoOfUs(instant.us),
      isoOfUs(newest.eventTimeUs),
    ])
  }

  /**
   * Reads a row near a time; only if there is none, of any time before: a compressed chunk would be unpacked
   * as a whole.
   */
  async #nearest<Row>(
    select: (since: string) => string,
    values: readonly (number | string)[],
    sinceUs: number | null,
  ): Promise<Row[]> {
    if (sinceUs !== null) {
      const { rows } = await this.#connection.query<Row>(select(`'${isoOfUs(sinceUs)}'::timestamptz`), [
        this.#symbol,
        ...values,
      ])
      if (rows.length > 0) return rows
    }
    return (await this.#connection.query<Row>(select("'-infinity'::timestamptz"), [this.#symbol, ...values]))
      .rows
  }

  async #diff(
    condition: string,
    order: string,
    values: readonly (number | string)[] = [],
  ): Promise<DiffKey | null> {
    const { rows } = await this.#connection.query<DiffKey>(
      `SELECT ${DIFF_KEY} FROM depth_updates WHERE symbol = $1 AND ${condition} ORDER BY ${order} LIMIT 1`,
      [this.#symbol, ...values],
    )
    return rows[0] ?? null
  }
}
