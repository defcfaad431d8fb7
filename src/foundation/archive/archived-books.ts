import type { BookStore, Instant } from '../order-book/book-at.ts'
import {
  type Anchor,
  type AnchorKey,
  type BookDiff,
  type DiffKey,
  snapshotHorizon,
} from '../order-book/book-rows.ts'
import type { ArchiveSnapshot } from './archive-snapshot.ts'
import type { DuckDb, EngineColumns } from './duckdb.ts'
import { LEVEL_COLUMNS, LevelRows } from './level-rows.ts'
import { ARCHIVE_TABLES } from './tables.ts'

const DEPTH = ARCHIVE_TABLES.depth.name
const SNAPSHOTS = ARCHIVE_TABLES.depthSnapshot.name

const TWO_TO_32 = 2 ** 32
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
    if (last === null) return { last, next: null }
    const { epoch, lastUpdateId, firstUpdateId, eventTimeUs } = last
    const isAfter = `(epoch, last_update_id, first_update_id) > (${epoch}, ${lastUpdateId}, ${firstUpdateId})`
    for await (const window of this.#forwards(eventTimeUs / 1000)) {
      const next = await this.#diff(window, isAfter, IN_ORDER)
      if (next !== null) return { last, next }
    }
    return { last, next: null }
  }

  async anchorBefore(epoch: number, updateId: number, except: readonly number[]): Promise<Anchor | null> {
    // An archive has no keyframes.
    const isOther = except.map((id) => ` AND last_update_id <> ${id}`).join('')
    const isBefore = `epoch = ${epoch} AND last_update_id <= ${updateId}${isOther}`
    for (const date of (
      await this.#datesAround(SNAPSHOTS, epoch, (firstId) => firstId <= updateId)
    ).reverse()) {
      const from = await this.#rows(SNAPSHOTS, dayOf(date))
      const [key] = await this.#duckDb.rows<AnchorKey & { limit: number }>(
        `SELECT ${ANCHOR_KEY}, level_limit AS "limit" FROM ${from} WHERE ${isBefore} ORDER BY last_update_id DESC, level_limit DESC, ingestion_timestamp LIMIT 1`,
      )
      if (key === undefined) continue
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

  async snapshotFrom(epoch: number, updateId: number): Promise<AnchorKey | null> {
    const isFrom = `epoch = ${epoch} AND last_update_id >= ${updateId}`
    for (const date of await this.#datesAround(SNAPSHOTS, epoch, (_, lastId) => lastId >= updateId)) {
      const [key] = await this.#duckDb.rows<AnchorKey>(
        `SELECT ${ANCHOR_KEY} FROM ${await this.#rows(SNAPSHOTS, dayOf(date))} WHERE ${isFrom}
         ORDER BY last_update_id, ingestion_timestamp LIMIT 1`,
      )
      if (key !== undefined) return key
    }
    return null
  }

  async *diffsFrom(epoch: number, updateId: number): AsyncGenerator<Iterable<BookDiff>> {
    const upTo = this.#last?.epoch === epoch ? this.#last : null
    const anchor =
      this.#anchor?.epoch === epoch && this.#anchor.lastUpdateId <= updateId ? this.#anchor : null
    const range = {
      symbols: [this.#symbol],
      fromMs: anchor === null ? null : anchor.receivedUs / 1000 - CLOCKS_MS,
      toMs: upTo === null ? null : upTo.eventTimeUs / 1000 + CLOCKS_MS,
    }
    const end = upTo === null ? '' : ` AND last_update_id <= ${upTo.lastUpdateId}`
    const select = (from: string, place: string, fromId: number) =>
      `SELECT last_update_id, first_update_id, epoch_us(event_time), epoch_us(ingestion_timestamp), ${place}, ${LEVEL_COLUMNS}
       FROM (${from}) WHERE epoch = ${epoch} AND last_update_id >= ${fromId}${end}`
    const rows = new DiffRows(epoch)
    for (const day of await this.#snapshot.days(DEPTH, range)) {
      // Files are in the order of event times, which is nearly always that of ids.
      const files = await this.#snapshot.unmerged(DEPTH, day, range)
      if (files === null) rows.unorderedId = rows.unorderedId ?? updateId
      else
        for await (const columns of this.#duckDb.columns(select(files, '_rank, _offset', updateId))) {
          yield rows.read(columns)
          if (rows.unorderedId !== null) break
        }
      if (rows.unorderedId !== null) break
    }
    if (rows.unorderedId === null) {
      yield rows.end()
      return
    }
    const sorted = new DiffRows(epoch)
    const relation = await this.#snapshot.relation(DEPTH, range)
    const inOrder = `${select(relation, '0::BIGINT, 0::BIGINT', rows.unorderedId)}
      ORDER BY last_update_id, first_update_id, event_time, side, level`
    for await (const columns of this.#duckDb.columns(inOrder)) yield sorted.read(columns)
    yield sorted.end()
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

  /** Reads the first diff of a window by an order. */
  async #diff(window: Window, condition: string, order: string): Promise<DiffKey | null> {
    const [key] = await this.#duckDb.rows<DiffKey>(
      `SELECT ${KEY} FROM ${await this.#rows(DEPTH, window)} WHERE ${condition} ORDER BY ${order} LIMIT 1`,
    )
    return key ?? null
  }

  async #rows(table: string, window: Window): Promise<string> {
    return `(${await this.#snapshot.relation(table, { symbols: [this.#symbol], ...window })})`
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
    for (const lengthMs of [2 * MINUTE_MS, HOUR_MS, DAY_MS]) yield { fromMs, toMs: fromMs + lengthMs }
    for (const date of await this.#snapshot.dates(DEPTH)) {
      const day = dayOf(date)
      if (day.toMs > fromMs) yield { fromMs: Math.max(fromMs, day.fromMs), toMs: day.toMs }
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

/** Diffs from rows of levels. A diff and its levels are valid until the next one. */
export class DiffRows {
  /** The last update id of a diff that came after one with a higher id; null if all were in order. */
  unorderedId: number | null = null
  readonly #rows = new LevelRows()
  readonly #epoch: number
  #eventTimeUs = 0
  #receivedUs = 0
  #rank = 0
  #offset = 0
  /** Whether the rows are those of a diff that was there already: it was delivered twice. */
  #isRepeat = false

  constructor(epoch: number) {
    this.#epoch = epoch
  }

  /** Yields the diffs that end in these rows. */
  *read(columns: EngineColumns): Generator<BookDiff> {
    const keys = [0, 1, 2, 3, 4, 5].map((i) => columns.words(i))
    const [sides, prices, quantities] = [columns.bytes(6), columns.words(7), columns.words(8)]
    for (let row = 0; row < columns.rows; row++) {
      // Nearly always the row before was of the same event.
      if (row === 0 || !isSameEvent(keys, row)) {
        yield* this.#begin(keys, row)
        if (this.unorderedId !== null) return
      }
      if (!this.#isRepeat) this.#rows.add(sides[row], prices, quantities, row)
    }
  }

  *#begin([lastIds, firstIds, times, receipts, ranks, offsets]: Keys, row: number): Generator<BookDiff> {
    const rows = this.#rows
    const lastId = integerAt(lastIds, row)
    const firstId = integerAt(firstIds, row)
    const rank = integerAt(ranks, row)
    const offset = integerAt(offsets, row)
    const timeUs = integerAt(times, row)
    const isSame = lastId === rows.lastId && firstId === rows.firstId && timeUs === this.#eventTimeUs
    if (!isSame) {
      if (rows.lastId >= 0) yield this.#diff()
      if (lastId < rows.lastId || (lastId === rows.lastId && firstId < rows.firstId)) {
        this.unorderedId = lastId
        return
      }
      rows.begin(lastId, firstId)
      this.#eventTimeUs = timeUs
      this.#receivedUs = integerAt(receipts, row)
    }
    if (isSame && offset === this.#offset && rank === this.#rank) return
    this.#isRepeat = isSame
    this.#offset = offset
    this.#rank = rank
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

/** Columns of 64 bits: last and first id, event time, receipt, rank and offset. */
type Keys = readonly Uint32Array[]

/** Whether a row and the one before have the same columns. */
function isSameEvent(keys: Keys, row: number): boolean {
  const at = row * 2
  for (const words of keys) if (words[at] !== words[at - 2] || words[at + 1] !== words[at - 1]) return false
  return true
}

function integerAt(words: Uint32Array | undefined, row: number): number {
  return (words?.[row * 2 + 1] ?? 0) * TWO_TO_32 + (words?.[row * 2] ?? 0)
}

function dayOf(date: string): Window {
  const fromMs = Date.parse(date)
  return { fromMs, toMs: fromMs + DAY_MS }
}
