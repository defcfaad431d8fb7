import { CommitChain, type SegmentFile } from '../foundation/archive/commit-chain.ts'
import type { DuckDb } from '../foundation/archive/duckdb.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import type { RowBuffer } from '../foundation/archive/row-buffer.ts'
import type { ArchiveTable } from '../foundation/archive/tables.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'
import type { Segment } from './segment.ts'

const DAY_MS = 86_400_000

/**
 * Writes a segment: its files, then the record that makes them part of the archive. An attempt that
 * failed is repeated with the same object, which keeps the files that are done.
 */
export class SegmentWriter {
  readonly #segment: Segment
  readonly #store: ObjectStore
  readonly #duckDb: Pick<DuckDb, 'writeParquet'>
  readonly #clock: Pick<Clock, 'wallMicros'>
  readonly #chain: CommitChain
  readonly #files = new Map<ArchiveTable, SegmentFile>()

  constructor(
    segment: Segment,
    store: ObjectStore,
    duckDb: Pick<DuckDb, 'writeParquet'>,
    clock: Pick<Clock, 'wallMicros'>,
  ) {
    this.#segment = segment
    this.#store = store
    this.#duckDb = duckDb
    this.#clock = clock
    this.#chain = new CommitChain(store, segment)
  }

  /** The files that are durable. */
  get files(): readonly SegmentFile[] {
    return [...this.#files.values()]
  }

  /**
   * Resolves when the segment is durable.
   *
   * @returns false if another owner has committed at its first offset; its files are removed
   */
  async write(): Promise<boolean> {
    const { incarnation, firstOffset, nextOffset, leaderEpoch, lost, id, buffers } = this.#segment
    for (const [table, rows] of buffers)
      if (!this.#files.has(table)) this.#files.set(table, await this.#writeFile(table, rows))
    const isOurs = await this.#chain.commit(incarnation, {
      ...{ segment: id, firstOffset, nextOffset, leaderEpoch, lost },
      committedAt: wallMs(this.#clock),
      files: [...this.#files.values()],
    })
    if (!isOurs) for (const { key } of this.#files.values()) await this.#store.remove(key)
    return isOurs
  }

  async #writeFile(table: ArchiveTable, rows: RowBuffer): Promise<SegmentFile> {
    const { incarnation, firstOffset, id } = this.#segment
    const key = this.#chain.segmentKey(incarnation, firstOffset, id, table.name)
    const stored = await this.#store.putFile(key, (path) => this.#duckDb.writeParquet(rows, path))
    const days = Object.fromEntries([...rows.days].map(([day, of]) => [dateOf(day), of.rows]))
    return { table: table.name, key, rows: rows.rows, ...stored, days }
  }
}

/** @param day since the Unix epoch */
function dateOf(day: number): string {
  return new Date(day * DAY_MS).toISOString().slice(0, 10)
}
