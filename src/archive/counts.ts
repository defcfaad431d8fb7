import type { SegmentFile } from '../foundation/archive/commit-chain.ts'
import type { Published } from './compaction.ts'
import type { Segment } from './segment.ts'

/** What this process has archived since its start. */
export class ArchiveCounts {
  readonly #totals = {
    segments: 0,
    rows: {} as Record<string, number>,
    bytes: 0,
    lost: 0,
    lastSegmentMs: 0,
    publishedDays: 0,
    publishedRows: 0,
    duplicates: 0,
    conflicts: 0,
  }
  failedCompactions = 0
  /** Order books that were rebuilt and stored. */
  keyframes = 0
  /** Null before the first one is published. */
  newestDay: string | null = null

  get totals(): Readonly<ArchiveCounts['values']> {
    return this.values
  }

  get values() {
    const { failedCompactions, keyframes, newestDay } = this
    return { ...this.#totals, failedCompactions, keyframes, newestDay }
  }

  committed({ lost }: Segment, files: readonly SegmentFile[], tookMs: number): void {
    this.#totals.segments++
    this.#totals.lost += lost
    this.#totals.lastSegmentMs = Math.round(tookMs)
    for (const { table, rows, bytes } of files) {
      this.#totals.rows[table] = (this.#totals.rows[table] ?? 0) + rows
      this.#totals.bytes += bytes
    }
  }

  published({ rows, duplicates, conflicts }: Published): void {
    this.#totals.publishedDays++
    this.#totals.publishedRows += rows
    this.#totals.duplicates += duplicates
    this.#totals.conflicts += conflicts?.rows ?? 0
  }
}
