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
 * @param rows all rows of the stream and epoch: the revisions must be above theirs
 */
export function closingRows(gaps: readonly ImportedGap[], rows: readonly IdRow[], nowMs: number): Gap[] {
  const revision = requestRevision(rows)
  const ids = new Set(rows.map(({ gap_id }) => gap_id))
  return gaps.flatMap(({ row, missing }) => {
    const filled = subtract([{ from: row.from_id, to: row.to_id }], missing)
    if (filled.length === 0) return []
    const parts = [
      ...filled.map((range) => ({ range, isFilled: true })),
      ...missing.map((range) => ({ range, isFilled: false })),
    ].sort((one, other) => one.range.from - other.range.from)
    return parts.map(({ range, isFilled }, i): Gap => {
      const id = gapId(row.symbol, row.event_type, row.epoch, range.from)
      const other = ids.has(id) ? `${id}/${revision}` : id
      return {
        ...row,
        ...{ gap_id: i === 0 ? row.gap_id : other, revision, from_id: range.from, to_id: range.to },
        ...(isFilled ? { status: 'filled', reason: REASON_IMPORTED, closed_at: nowMs } : {}),
        updated_at: nowMs,
      }
    })
  })
}
