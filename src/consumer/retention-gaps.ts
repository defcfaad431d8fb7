import type { EventType } from '../market/event.ts'
import { type Gap, gapId } from '../market/gap.ts'
import type { LastStored } from '../store/last-stored.ts'

/** The first event of a symbol and type after messages had left their topic unread. */
export interface FirstAfterLoss {
  readonly symbol: string
  readonly eventType: EventType
  /** Its trade id or update id. */
  readonly id: number
  /** Trade time, or receipt for bookTicker; milliseconds since the Unix epoch. */
  readonly timeMs: number
}

const REASON = 'left Kafka before it was stored'

/**
 * The ledger rows for what retention took from us: from the last stored event of a symbol and type to the first
 * one seen after. Trades that follow each other by id lost nothing; of bookTicker only the window is known.
 *
 * @param nowMs of the wall clock
 */
export function retentionGaps(
  firsts: readonly FirstAfterLoss[],
  stored: readonly LastStored[],
  nowMs: number,
): Gap[] {
  return firsts.flatMap((first) => {
    const last = stored.find(
      ({ symbol, eventType }) => symbol === first.symbol && eventType === first.eventType,
    )
    if (last === undefined) return []
    // What is delivered again may be what is stored last, or older: nothing lies between. An empty row would take the
    // id that the row of a later loss needs.
    if (last.id === null ? last.timeMs >= first.timeMs : last.id + 1 >= first.id) return []
    return [
      {
        // An id of its own: ingestion may have a gap that begins at the same id, or a window at the same time.
        gap_id: `${gapId(first.symbol, first.eventType, 0, last.id === null ? last.timeMs : last.id + 1)}/retention`,
        revision: 1,
        symbol: first.symbol,
        event_type: first.eventType,
        epoch: 0,
        from_id: last.id === null ? null : last.id + 1,
        to_id: last.id === null ? null : first.id - 1,
        from_time: last.timeMs,
        to_time: first.timeMs,
        cause: 'retention',
        status: 'unrecoverable' as const,
        reason: REASON,
        detected_at: nowMs,
        updated_at: nowMs,
        closed_at: nowMs,
      },
    ]
  })
}
