import type { ChainPoint, ChainRecord, SegmentFile } from './commit-chain.ts'

/** A segment's file with rows of a day. */
export interface SegmentDay extends SegmentFile {
  /** UTC, like `2026-01-31`. */
  readonly date: string
  /** The path of its chain: `topic/topic id/partition`. */
  readonly chain: string
  /** The end of its record. */
  readonly end: ChainPoint
  /** Milliseconds since the Unix epoch; not before that of the records before it in the chain. */
  readonly committedAt: number
}

/**
 * Returns the files of records once for each of their days, in the order in which they were committed:
 * if rows have one identity, the first stays, as in the tables. Rows of a symbol may be in several
 * chains: of a recreated topic, or of one that got more partitions.
 */
export function segmentDays(
  chains: ReadonlyArray<{ readonly path: string; readonly records: readonly ChainRecord[] }>,
): SegmentDay[] {
  return chains.flatMap(inChain).sort((one, other) => one.committedAt - other.committedAt)
}

function inChain({
  path,
  records,
}: {
  readonly path: string
  readonly records: readonly ChainRecord[]
}): SegmentDay[] {
  // The clocks of two owners may differ; the order of the records is right.
  let committedAt = 0
  return records.flatMap((record) => {
    committedAt = Math.max(committedAt, record.committedAt)
    const end = { incarnation: record.incarnation, offset: record.nextOffset }
    const place = { chain: path, end, committedAt }
    return record.files.flatMap((file) => Object.keys(file.days).map((date) => ({ ...file, ...place, date })))
  })
}

export function dayKey({ table, date }: { readonly table: string; readonly date: string }): string {
  return `${table}/${date}`
}
