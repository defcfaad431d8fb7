import { type Gap, gapId } from '../../foundation/market/gap.ts'
import { type IdRow, requestRevision } from '../../foundation/market/gap-requests.ts'
import { type IdRange, subtract } from '../../foundation/market/id-ranges.ts'

export const REASON_IMPORTED = 'imported from a daily file'

/** An unrecoverable gap, and which of its ids are still missing. */
export interface ImportedGap {
  readonly row: IdRow
  readonly missing: readonly IdRange[]
}

/**
 * Returns the revisions that close what was imported, and keep the rest. A gap that is filled in part
 * is split: its first part keeps the id of the gap. Specification: L3, L7.
 *
 * New rows come before the one that is narrowed: if only the first ones are sent, every id has a row.
 * Then the next import finds rows inside the gap, leaves their ids to them and narrows it.
 *
 * @param rows all rows of the stream and epoch: the revisions must be above theirs
 */
export function closingRows(gaps: readonly ImportedGap[], rows: readonly IdRow[], nowMs: number): Gap[] {
  const revision = requestRevision(rows)
  const ids = new Set(rows.map(({ gap_id }) => gap_id))
  return gaps.flatMap(({ row, missing }) => {
    const inside = rows.filter(({ from_id, to_id }) => from_id > row.from_id && to_id <= row.to_id)
    const own = subtract([rangeOf(row)], inside.map(rangeOf))
    const filled = subtract(own, missing)
    if (filled.length === 0 && inside.length === 0) return []
    const [first, ...others] = [
      ...filled.map((range) => ({ range, isFilled: true })),
      ...subtract(own, filled).map((range) => ({ range, isFilled: false })),
    ].sort((one, other) => one.range.from - other.range.from)
    if (first === undefined) return []
    const revised = (gap_id: string, { range, isFilled }: typeof first): Gap => ({
      ...row,
      ...{ gap_id, revision, from_id: range.from, to_id: range.to },
      ...(isFilled ? { status: 'filled', reason: REASON_IMPORTED, closed_at: nowMs } : {}),
      updated_at: nowMs,
    })
    const added = others.map((part) => {
      const id = gapId(row.symbol, row.event_type, row.epoch, part.range.from)
      return revised(ids.has(id) ? `${id}/${revision}` : id, part)
    })
    return [...added, revised(row.gap_id, first)]
  })
}

function rangeOf({ from_id: from, to_id: to }: IdRow): IdRange {
  return { from, to }
}
