import type { Apart, BookStore, Instant } from '../order-book/book-at.ts'
import {
  type Anchor,
  type AnchorKey,
  type BookDiff,
  type DiffKey,
  snapshotHorizon,
} from '../order-book/book-rows.ts'
import type { OrderBook } from '../order-book/order-book.ts'
import type { ArchiveSnapshot, RowRange } from './archive-snapshot.ts'
import { keyframesOf, readKeyframe } from './archived-keyframes.ts'
import { type DuckDb, type EngineColumns, integerAt } from './duckdb.ts'
import { LEVEL_COLUMNS, LevelRows } from './level-rows.ts'
import { withLevelTable } from './level-table.ts'
import { reducedBook } from './reduced-book.ts'
import { ARCHIVE_TABLES } from './tables.ts'

const DEPTH = ARCHIVE_TABLES.depth.name
const SNAPSHOTS = ARCHIVE_TABLES.depthSnapshot.name

const MINUTE_MS = 60_000
const HOUR_MS = 3_600_000
const DAY_MS = 86_400_000
/** How far event times and receipts of one diff, or event times of neighbouring diffs, may be apart. */
const CLOCKS_MS = HOUR_MS

const KEY = `epoch, first_update_id::DOUBLE AS "firstUpdateId", last_update_id::DOUBLE AS "lastUpdateId",
  epoch_us(event_time)::DOUBLE AS "eventTimeUs", epoch_us(ingestion_timestamp)::DOUBLE AS "receivedUs"`
const ANCHOR_KEY = `epoch, last_update_id::DOUBLE AS "lastUpdateId", epoch_us(ingestion_timestamp)::DOUBLE AS "receivedUs"`
const IN_ORDER = 'epoch, last_update_id, first_update_id'
const BACKWARDS = 'epoch DESC, last_update_id DESC, first_update_id DESC'

interface Window {
  readonly fromMs: number
  readonly toMs: number
}

/** The order books of a symbol in an archive, as of one moment: published days and segments. */
export class ArchivedBooks implements BookStore {
  readonly #duckDb: DuckDb
  readonly #snapshot: ArchiveSnapshot
  readonly #symbol: string
  /** The last diff of {@link diffsAround}, which bounds what {@link diffsFrom} reads. */
  #last: DiffKey | null = null
  /** The anchor of {@link anchorBefore}, after which the diffs are read. */
  #anchor: AnchorKey | null = null

  constructor(duckDb: DuckDb, snapshot: ArchiveSnapshot, symbol: string) {
    this.#duckDb = duckDb
    this.#snapshot = snapshot
    this.#symbol = symbol
  }

  async diffsAround(instant: Instant): ReturnType<BookStore['diffsAround']> {
    const last = await this.#lastUpTo(instant)
    this.#last = last
    if (last === null) return { last, next: await this.#first() }
    const { epoch, lastUpdateId, firstUpdateId, eventTimeUs } = last
    const isAfter = `(epoch, last_update_id, first_update_id) > (${epoch}, ${lastUpdateId}, ${firstUpdateId})`
    for await (const window of this.#forwards(eventTimeUs / 1000)) {
      const next = await this.#diff(window, isAfter, IN_ORDER)
      if (next !== null) return { last, next }
    }
    return { last, next: null }
  }

  async anchorBefore(epoch: number, updateId: number, except: readonly number[]): Promise<Anchor | null> {
    const isOther = except.map((id) => ` AND last_update_id <> ${id}`).join('')
    const isBefore = `epoch = ${epoch} AND last_update_id <= ${updateId}${isOther}`
    for (const date of (
      await this.#datesAround(SNAPSHOTS, epoch, (firstId) => firstId <= updateId)
    ).reverse()) {
      const from = await this.#snapshots(dayOf(date))
      const [key] = await this.#duckDb.rows<AnchorKey & { limit: number }>(
        `SELECT ${ANCHOR_KEY}, level_limit AS "limit" FROM ${from} WHERE ${isBefore} ORDER BY last_update_id DESC, level_limit DESC, ingestion_timestamp LIMIT 1`,
      )
      if (key === undefined) continue
      const keyframe = await this.#keyframe(key, updateId)
      if (keyframe !== null) return keyframe
      const { lastUpdateId, receivedUs } = key
      this.#anchor = { epoch, lastUpdateId, receivedUs }
      const rows = new LevelRows()
      rows.begin(lastUpdateId, lastUpdateId)
      const query = `SELECT ${LEVEL_COLUMNS} FROM ${from} WHERE epoch = ${epoch} AND last_update_id = ${lastUpdateId}
        AND epoch_us(ingestion_timestamp) = ${receivedUs} ORDER BY side, level`
      for await (const columns of this.#duckDb.columns(query)) rows.addAll(columns, 0)
      const { bids, asks } = rows
      const horizons = {
        bidHorizon: snapshotHorizon(bids, key.limit),
        askHorizon: snapshotHorizon(asks, key.limit),
      }
      return { epoch, lastUpdateId, receivedUs, bids, asks, ...horizons, derivedFrom: null }
    }
    return null
  }

  /**
   * Returns the newest keyframe of a snapshot, with an id up to one. Those of another snapshot may be exact to
   * less: this one has arrived after them.
   */
  async #keyframe(snapshot: AnchorKey, updateId: number): Promise<Anchor | null> {
    const { store } = this.#snapshot
    const names = (await keyframesOf(store, this.#symbol, snapshot)).filter(
      ({ lastUpdateId, snapshotId }) => lastUpdateId <= updateId && snapshotId === snapshot.lastUpdateId,
    )
    for (const name of names.reverse()) {
      const keyframe = await readKeyframe(store, name)
      // Snapshots of one id may have other levels.
      if (keyframe?.derivedFrom?.receivedUs !== snapshot.receivedUs) continue
      // Later diffs have later event times, whatever the clock of the receipt said.
      this.#anchor = { ...name, receivedUs: Math.min(name.receivedUs, name.eventTimeUs) }
      return keyframe
    }
    return null
  }

  async snapshotFrom(epoch: number, updateId: number): Promise<AnchorKey | null> {
    const isFrom = `epoch = ${epoch} AND last_update_id >= ${updateId}`
    for (const date of await this.#datesAround(SNAPSHOTS, epoch, (_, lastId) => lastId >= updateId)) {
      const [key] = await this.#duckDb.rows<AnchorKey>(
        `SELECT ${ANCHOR_KEY} FROM ${await this.#snapshots(dayOf(date))} WHERE ${isFrom}
         ORDER BY last_update_id, ingestion_timestamp LIMIT 1`,
      )
      if (key !== undefined) return key
    }
    return null
  }

  async *diffsFrom(epoch: number, updateId: number): AsyncGenerator<Iterable<BookDiff>> {
    const relation = await this.#snapshot.relation(DEPTH, this.#range(epoch, updateId))
    const end = this.#last?.epoch === epoch ? ` AND last_update_id <= ${this.#last.lastUpdateId}` : ''
    const query = `SELECT ${DIFF_COLUMNS} FROM (${relation})
      WHERE epoch = ${epoch} AND last_update_id >= ${updateId}${end} ORDER BY ${DIFF_ORDER}`
    const rows = new DiffRows(epoch)
    for await (const columns of this.#duckDb.columns(query)) yield rows.read(columns)
    yield rows.end()
  }

  async bookAfter(anchor: Anchor, last: DiffKey): Promise<OrderBook | Apart | null> {
    const { epoch, lastUpdateId, derivedFrom } = anchor
    const placed = await this.#snapshot.placed(DEPTH, this.#range(epoch, lastUpdateId))
    const diffs = `SELECT * FROM (${placed})
      WHERE epoch = ${epoch} AND last_update_id > ${lastUpdateId} AND last_update_id <= ${last.lastUpdateId}`
    const reduced = (levels: string) => reducedBook(this.#duckDb, anchor, last, { diffs, anchor: levels })
    return derivedFrom === null
      ? reduced(await this.#levels(anchor))
      : withLevelTable(this.#duckDb, anchor, reduced)
  }

  /** Returns a query of the rows of a snapshot. */
  async #levels({ epoch, lastUpdateId, receivedUs }: AnchorKey): Promise<string> {
    const receivedMs = Math.floor(receivedUs / 1000)
    const of = { symbols: [this.#symbol], fromMs: receivedMs, toMs: receivedMs + 1 }
    return `SELECT * FROM (${await this.#snapshot.relation(SNAPSHOTS, of)})
      WHERE epoch = ${epoch} AND last_update_id = ${lastUpdateId} AND epoch_us(ingestion_timestamp) = ${receivedUs}`
  }

  /** Where the diffs from an id on are, up to the last one that is wanted. */
  #range(epoch: number, updateId: number): RowRange {
    const upTo = this.#last?.epoch === epoch ? this.#last : null
    const anchor =
      this.#anchor?.epoch === epoch && this.#anchor.lastUpdateId <= updateId ? this.#anchor : null
    // The clock of the receipt may be ahead.
    const sinceUs = Math.min(anchor?.receivedUs ?? 0, upTo?.eventTimeUs ?? Number.POSITIVE_INFINITY)
    return {
      symbols: [this.#symbol],
      fromMs: anchor === null ? null : sinceUs / 1000 - CLOCKS_MS,
      toMs: upTo === null ? null : upTo.eventTimeUs / 1000 + CLOCKS_MS,
    }
  }

  async #lastUpTo(instant: Instant): Promise<DiffKey | null> {
    if (instant.kind === 'update id') {
      const epoch = instant.epoch ?? (await this.#newestEpoch())
      const isUpTo = `(epoch < ${epoch} OR (epoch = ${epoch} AND last_update_id <= ${instant.updateId}))`
      for (const date of (await this.#snapshot.dates(DEPTH)).reverse()) {
        if (
          !(await this.#mayHave(
            DEPTH,
            date,
            (of, firstId) => of < epoch || (of === epoch && firstId <= instant.updateId),
          ))
        )
          continue
        const last = await this.#diff(dayOf(date), isUpTo, BACKWARDS)
        if (last !== null) return last
      }
      return null
    }
    const isReceipt = instant.kind === 'receipt'
    const isUpTo = `epoch_us(${isReceipt ? 'ingestion_timestamp' : 'event_time'}) <= ${instant.us}`
    for await (const window of this.#backwards(instant.us / 1000 + (isReceipt ? CLOCKS_MS : 0))) {
      const last = await this.#diff(window, isUpTo, BACKWARDS)
      if (last !== null) return last
    }
    return null
  }

  async #newestEpoch(): Promise<number> {
    for (const date of (await this.#snapshot.dates(DEPTH)).reverse()) {
      const newest = await this.#diff(dayOf(date), 'true', BACKWARDS)
      if (newest !== null) return newest.epoch
    }
    return 0
  }

  async #first(): Promise<DiffKey | null> {
    for (const date of await this.#snapshot.dates(DEPTH)) {
      const first = await this.#diff(dayOf(date), 'true', IN_ORDER)
      if (first !== null) return first
    }
    return null
  }

  /** Reads the first diff of a window by an order. */
  async #diff(window: Window, condition: string, order: string): Promise<DiffKey | null> {
    const rows = await this.#snapshot.placed(DEPTH, { symbols: [this.#symbol], ...window })
    const isInside = `event_time >= make_timestamptz(${Math.floor(window.fromMs * 1000)}) AND event_time < make_timestamptz(${Math.ceil(window.toMs * 1000)})`
    const [key] = await this.#duckDb.rows<DiffKey>(
      `SELECT ${KEY} FROM (${rows}) WHERE ${isInside} AND ${condition} ORDER BY ${order}, event_time, _rank, _offset LIMIT 1`,
    )
    return key ?? null
  }

  async #snapshots(window: Window): Promise<string> {
    return `(${await this.#snapshot.relation(SNAPSHOTS, { symbols: [this.#symbol], ...window })})`
  }

  /** Windows that end at a time: short ones first, then whole days with rows. */
  async *#backwards(ms: number): AsyncGenerator<Window> {
    const toMs = Math.floor(ms) + 1
    for (const lengthMs of [MINUTE_MS + CLOCKS_MS, DAY_MS]) yield { fromMs: toMs - lengthMs, toMs }
    const dates = await this.#snapshot.dates(DEPTH)
    for (const date of dates.reverse()) {
      const day = dayOf(date)
      if (day.fromMs < toMs) yield { fromMs: day.fromMs, toMs: Math.min(toMs, day.toMs) }
    }
  }

  /** Windows that begin at a time, and a little before it. */
  async *#forwards(ms: number): AsyncGenerator<Window> {
    const fromMs = Math.floor(ms) - MINUTE_MS
    const nearMs = fromMs + 2 * MINUTE_MS
    yield { fromMs, toMs: nearMs }
    yield { fromMs: nearMs, toMs: nearMs + HOUR_MS }
    for (const date of await this.#snapshot.dates(DEPTH)) {
      const day = dayOf(date)
      if (day.toMs > nearMs + HOUR_MS)
        yield { fromMs: Math.max(nearMs + HOUR_MS, day.fromMs), toMs: day.toMs }
    }
  }

  async #datesAround(
    table: string,
    epoch: number,
    isWanted: (firstId: number, lastId: number) => boolean,
  ): Promise<string[]> {
    const dates: string[] = []
    for (const date of await this.#snapshot.dates(table))
      if (
        await this.#mayHave(table, date, (of, firstId, lastId) => of === epoch && isWanted(firstId, lastId))
      )
        dates.push(date)
    return dates
  }

  /** Whether a day may have such rows, by its list. */
  async #mayHave(
    table: string,
    date: string,
    isWanted: (epoch: number, firstId: number, lastId: number) => boolean,
  ): Promise<boolean> {
    const { list, pending } = await this.#snapshot.day(table, date)
    if (list === null || pending.length > 0) return true
    return (list.symbols[this.#symbol] ?? []).some(({ epoch, firstId, lastId }) =>
      isWanted(epoch, firstId, lastId),
    )
  }
}

/** SQL of the columns that {@link DiffRows} reads, and their order. */
export const DIFF_COLUMNS = `last_update_id, first_update_id, epoch_us(event_time), epoch_us(ingestion_timestamp), ${LEVEL_COLUMNS}`
export const DIFF_ORDER = 'last_update_id, first_update_id, event_time, side, level'

/** Diffs from rows of levels. A diff and its levels are valid until the next one. */
export class DiffRows {
  readonly #rows = new LevelRows()
  readonly #epoch: number
  #eventTimeUs = 0
  #receivedUs = 0

  constructor(epoch: number) {
    this.#epoch = epoch
  }

  /** Yields the diffs that end in these rows. */
  *read(columns: EngineColumns): Generator<BookDiff> {
    const rows = this.#rows
    const [lastIds, firstIds, times, receipts] = [0, 1, 2, 3].map((i) => columns.words(i))
    const [sides, prices, quantities] = [columns.bytes(4), columns.words(5), columns.words(6)]
    for (let row = 0; row < columns.rows; row++) {
      const lastId = integerAt(lastIds, row)
      const firstId = integerAt(firstIds, row)
      const timeUs = integerAt(times, row)
      if (lastId !== rows.lastId || firstId !== rows.firstId || timeUs !== this.#eventTimeUs) {
        if (rows.lastId >= 0) yield this.#diff()
        rows.begin(lastId, firstId)
        this.#eventTimeUs = timeUs
        this.#receivedUs = integerAt(receipts, row)
      }
      rows.add(sides[row], prices, quantities, row)
    }
  }

  /** Yields the diff whose end nothing has shown. */
  *end(): Generator<BookDiff> {
    if (this.#rows.lastId >= 0) yield this.#diff()
  }

  #diff(): BookDiff {
    const { lastId, firstId, bids, asks } = this.#rows
    const key = { epoch: this.#epoch, firstUpdateId: firstId, lastUpdateId: lastId }
    return { ...key, eventTimeUs: this.#eventTimeUs, receivedUs: this.#receivedUs, bids, asks }
  }
}

function dayOf(date: string): Window {
  const fromMs = Date.parse(date)
  return { fromMs, toMs: fromMs + DAY_MS }
}
