import {
  isSequenced,
  isTradeType,
  type SequencedType,
  type TradeType,
} from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { IdRange } from '../../foundation/market/id-ranges.ts'
import { setNewest } from '../../foundation/runtime/bounded-map.ts'

/** A gap of ids. Gaps of bookTicker are time windows instead, closed from the start. */
export interface IdGap extends Gap {
  readonly event_type: SequencedType
  readonly from_id: number
  readonly to_id: number
}

/** A gap whose ids REST may have. */
export interface TradeGap extends IdGap {
  readonly event_type: TradeType
}

export function isTradeGap(gap: IdGap): gap is TradeGap {
  return isTradeType(gap.event_type)
}

/** An older instance may still enter ids that were closed here, and a request may arrive twice. */
const MAX_CLOSED = 10_000

/** Adds a row; keeps at most {@link MAX_CLOSED}. */
export function remember<Row extends Gap>(rows: Map<string, Row>, row: Row): void {
  setNewest(rows, row.gap_id, row, MAX_CLOSED)
}

export type GapSequence = Pick<IdGap, 'symbol' | 'event_type' | 'epoch'>

export function isSameSequence(one: GapSequence, other: GapSequence): boolean {
  return one.symbol === other.symbol && one.event_type === other.event_type && one.epoch === other.epoch
}

export function rangeOf({ from_id, to_id }: Pick<IdGap, 'from_id' | 'to_id'>): IdRange {
  return { from: from_id, to: to_id }
}

/** Returns a row without ids, because other rows have all that are missing. */
export function emptied(gap: IdGap, others: readonly IdGap[], nowMs: number): Gap {
  const other = others.find(({ from_id, to_id }) => from_id <= gap.from_id && gap.from_id <= to_id)
  return {
    ...gap,
    from_id: null,
    to_id: null,
    from_time: gap.detected_at,
    to_time: gap.detected_at,
    status: 'filled',
    reason: `its ids are in ${other?.gap_id ?? 'other rows, or stored'}`.slice(0, 200),
    closed_at: nowMs,
  }
}

/** Returns the row as a gap of ids; empty for time windows. */
export function asIdGap(gap: Gap): IdGap[] {
  const { event_type, from_id, to_id } = gap
  return !isSequenced(event_type) || from_id === null || to_id === null
    ? []
    : [{ ...gap, event_type, from_id, to_id }]
}
