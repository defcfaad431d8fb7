import type { TradeType } from './event.ts'
import { type Gap, gapId } from './gap.ts'
import { type IdRange, subtract } from './id-ranges.ts'

/*
 * Requests to reopen gaps: `open` rows in the ledger's topic that name no instance. Ingestion takes
 * them over. Specification: L5.
 */

export type IdRow = Gap & { readonly from_id: number; readonly to_id: number }

/** Returns a revision above all of the stream, even if a row is closed meanwhile. */
export function requestRevision(rows: readonly Pick<Gap, 'revision'>[]): number {
  return 2 + rows.reduce((highest, { revision }) => Math.max(highest, revision), 0)
}

/** @param range the missing ids of the row, which keeps its gap id and narrows to them */
export function reopened(row: IdRow, range: IdRange, revision: number, nowMs: number): IdRow {
  return {
    ...row,
    revision,
    from_id: range.from,
    to_id: range.to,
    status: 'open',
    reason: null,
    updated_at: nowMs,
    closed_at: null,
  }
}

export interface Unstored {
  readonly symbol: string
  readonly eventType: TradeType
  readonly epoch: number
  readonly cause: string
  readonly fromMs: number
  readonly toMs: number
  readonly detectedMs: number
}

/**
 * Returns requests for ids that are not stored, although the ledger has them neither open nor unrecoverable.
 * @param filled `filled` rows with the ids of each that are not stored
 * @param lost ids that are not stored, wherever they are in the ledger
 */
export function requestsFor(
  stream: Unstored,
  rows: readonly IdRow[],
  filled: ReadonlyArray<{ readonly row: IdRow; readonly missing: readonly IdRange[] }>,
  lost: readonly IdRange[],
  revision: number,
  nowMs: number,
): IdRow[] {
  const ids = new Set(rows.map(({ gap_id }) => gap_id))
  const added = (range: IdRange): IdRow => {
    const { symbol, eventType, epoch, cause, fromMs, toMs, detectedMs } = stream
    const id = `${gapId(symbol, eventType, epoch, range.from)}/${cause}`
    return {
      gap_id: ids.has(id) ? `${id}/${revision}` : id,
      revision,
      symbol,
      event_type: eventType,
      epoch,
      from_id: range.from,
      to_id: range.to,
      from_time: fromMs,
      to_time: toMs,
      cause,
      status: 'open',
      reason: null,
      detected_at: detectedMs,
      updated_at: nowMs,
      closed_at: null,
    }
  }
  const again = filled.flatMap(({ row, missing: [first, ...others] }) =>
    first === undefined ? [] : [reopened(row, first, revision, nowMs), ...others.map(added)],
  )
  const inRows = rows.map(({ from_id, to_id }) => ({ from: from_id, to: to_id }))
  return [...again, ...subtract(lost, inRows).map(added)]
}
