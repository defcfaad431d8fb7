import type { EventType } from '../foundation/market/event.ts'
import { type Gap, gapId } from '../foundation/market/gap.ts'
import type { LastStored } from '../foundation/store/last-stored.ts'
import type { LossCause } from '../foundation/store/losses.ts'

/** The first event of a symbol and type after messages had left their topic unread. */
export interface FirstAfterLoss {
  readonly symbol: string
  readonly eventType: EventType
  /** 0 for bookTicker, which has none. */
  readonly epoch: number
  /** Its trade id or update id. */
  readonly id: number
  /** Trade time, or receipt for bookTicker; milliseconds since the Unix epoch. */
  readonly timeMs: number
  /** What had taken the messages before it. */
  readonly cause: LossCause
}

const REASONS: Readonly<Record<LossCause, string>> = {
  retention: 'left Kafka before it was stored',
  recreated: 'the topic was deleted and made again: what stood unread in it is gone',
}

/**
 * The ledger rows for what Kafka no longer had for us: from the last stored event of a symbol and type to the first
 * one seen after. Trades that follow each other by id lost nothing. Of bookTicker only the window is known, and of
 * trades too when the exchange has begun their ids anew in between: nobody can say where the old ones ended.
 *
 * @param nowMs of the wall clock
 */
export function retentionGaps(
  firsts: readonly FirstAfterLoss[],
  stored: readonly LastStored[],
  nowMs: number,
): Gap[] {
  const gaps = new Map<string, Gap>()
  for (const first of firsts) {
    const last = stored.find(
      ({ symbol, eventType }) => symbol === first.symbol && eventType === first.eventType,
    )
    if (last === undefined || !liesBetween(last, first)) continue
    const gap = gapBetween(last, first, nowMs)
    // A symbol that has moved to another partition may show twice in a batch: a statement takes a row once.
    if (!gaps.has(gap.gap_id)) gaps.set(gap.gap_id, gap)
  }
  return [...gaps.values()]
}

/**
 * What is delivered again may be what is stored last, or older: nothing lies between. An empty row would take the id
 * that the row of a later loss needs.
 */
function liesBetween(last: LastStored, first: FirstAfterLoss): boolean {
  if (last.id === null) return last.timeMs < first.timeMs
  if (last.epoch === first.epoch) return last.id + 1 < first.id
  // Whoever counted the epochs may have begun anew too: then it is the time that tells what is later.
  return last.epoch < first.epoch || last.timeMs < first.timeMs
}

function gapBetween(last: LastStored, first: FirstAfterLoss, nowMs: number): Gap {
  const { symbol, eventType, epoch, cause } = first
  const ids = last.id === null || last.epoch !== epoch ? null : { from: last.id + 1, to: first.id - 1 }
  const begins = ids?.from ?? (last.id === null ? last.timeMs : first.id)
  return {
    // An id of its own: ingestion may have a gap that begins at the same id, or a window at the same time.
    gap_id: `${gapId(symbol, eventType, epoch, begins)}/${cause}`,
    revision: 1,
    symbol,
    event_type: eventType,
    epoch,
    from_id: ids?.from ?? null,
    to_id: ids?.to ?? null,
    from_time: last.timeMs,
    // Of two trades the later id may have the earlier time.
    to_time: Math.max(last.timeMs, first.timeMs),
    cause,
    status: 'unrecoverable',
    reason: last.epoch === epoch ? REASONS[cause] : `${REASONS[cause]}; ${edges(last, first)}`,
    detected_at: nowMs,
    updated_at: nowMs,
    closed_at: nowMs,
  }
}

/** What is known where the ids began anew. */
function edges(last: LastStored, first: FirstAfterLoss): string {
  return `ids after ${last.id} of epoch ${last.epoch} and before ${first.id} of epoch ${first.epoch}`
}
