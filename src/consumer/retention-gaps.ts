import { isTradeType, type StreamType } from '../foundation/market/event.ts'
import { type Gap, gapId } from '../foundation/market/gap.ts'
import type { LastStored } from '../foundation/store/last-stored.ts'
import type { LossCause } from '../foundation/store/losses.ts'
import type { LostIds } from '../foundation/store/lost-ids.ts'
import type { SequenceStart } from '../foundation/store/meta.ts'

/** The first event of a symbol and type after messages expired unread. */
export interface FirstAfterLoss {
  readonly symbol: string
  readonly eventType: StreamType
  /** 0 for bookTicker, which has none. */
  readonly epoch: number
  /** Its trade id or (last) update id. */
  readonly id: number
  /** The first update id that it covers, if it is a change of an order book; otherwise its id. */
  readonly firstId: number
  /** Trade time, or receipt for bookTicker; milliseconds since the Unix epoch. */
  readonly timeMs: number
  /** Why the messages before it were lost. */
  readonly cause: LossCause
  /** Identifies that loss. */
  readonly loss: string
}

const REASONS: Readonly<Record<Exclude<LossCause, 'start'>, string>> = {
  retention: 'left Kafka before it was stored',
  recreated: 'the topic was deleted and recreated: its unread messages are lost',
}

/** A first event after a loss. The cause `start` is not a loss. */
export type LosingFirst = FirstAfterLoss & { readonly cause: Exclude<LossCause, 'start'> }

/**
 * Where the consumer began to store a symbol's trades or aggTrades: the first that it read. Older
 * backfilled trades may be stored too, since the fill of an old gap arrives later.
 */
export function sequenceStarts(firsts: readonly FirstAfterLoss[]): SequenceStart[] {
  return firsts.flatMap(({ symbol, eventType, epoch, id, timeMs, cause }) =>
    cause === 'start' && isTradeType(eventType) ? [{ symbol, eventType, epoch, id, timeMs }] : [],
  )
}

/** The first events that follow a loss. */
export function afterRealLoss(firsts: readonly FirstAfterLoss[]): LosingFirst[] {
  return firsts.flatMap((first) => (first.cause === 'start' ? [] : [{ ...first, cause: first.cause }]))
}

/** Effect of a loss on a symbol and type. */
export interface AfterLoss {
  /** Ledger rows for what nobody can fill: quotes, order books, and trades across a reset of the ids. */
  readonly windows: Gap[]
  /** Trades that ingestion must backfill. */
  readonly lost: Array<{ readonly key: string; readonly lost: LostIds }>
}

/**
 * Computes what Kafka lost before it was stored: from the last stored event of a symbol and type to
 * the first one after. For bookTicker only the time window is known, and nobody has past updates of order books. The same holds for trades if
 * the exchange restarted their ids in between: the last id of the old sequence is unknown.
 *
 * @param nowMs of the wall clock
 */
export function afterLoss(
  firsts: readonly LosingFirst[],
  stored: readonly LastStored[],
  nowMs: number,
): AfterLoss {
  const windows = new Map<string, Gap>()
  const lost = new Map<string, AfterLoss['lost'][number]>()
  for (const first of firsts) {
    const last = stored.find(
      ({ symbol, eventType }) => symbol === first.symbol && eventType === first.eventType,
    )
    if (last === undefined) continue
    const stream = `${first.symbol} ${first.eventType}`
    // A symbol that has moved to another partition may occur twice in a batch.
    if (isTradeType(first.eventType) && !lost.has(stream))
      lost.set(stream, { key: `${first.loss}:${stream}`, lost: lostIds(last, first, nowMs) })
    const ids = missingUpdates(last, first)
    if (ids === null && last.epoch === first.epoch && last.id !== null) continue
    if (!liesBetween(last, first)) continue
    const gap = windowBetween(last, first, ids, nowMs)
    if (!windows.has(gap.gap_id)) windows.set(gap.gap_id, gap)
  }
  return { windows: [...windows.values()], lost: [...lost.values()] }
}

/** Also used where the ids are consecutive: the lost messages may have included backfilled trades. */
function lostIds(last: LastStored, first: LosingFirst, nowMs: number): LostIds {
  const { symbol, eventType, id, cause } = first
  if (!isTradeType(eventType)) throw new TypeError('Quotes have no ids')
  const isBetween = last.epoch === first.epoch && last.id !== null && last.id + 1 < id
  return {
    symbol,
    eventType,
    epoch: last.epoch,
    range: isBetween ? { from: (last.id ?? 0) + 1, to: id - 1 } : null,
    fromMs: last.timeMs,
    // The trade with the later id may have the earlier time.
    toMs: Math.max(last.timeMs, first.timeMs),
    cause,
    detectedMs: nowMs,
  }
}

/** A redelivered event may be the last one stored, or older: then nothing lies between. */
function liesBetween(last: LastStored, first: FirstAfterLoss): boolean {
  if (last.id === null) return last.timeMs < first.timeMs
  // The epoch counter may have been restarted too: then the time decides which is later.
  return last.epoch < first.epoch || last.timeMs < first.timeMs
}

/** Returns the update ids between two changes of an order book; null if none are missing, and for other types. */
function missingUpdates(last: LastStored, { eventType, epoch, firstId }: LosingFirst): IdRange | null {
  if (eventType !== 'depth' || last.id === null || last.epoch !== epoch || last.id + 1 >= firstId) return null
  return { from: last.id + 1, to: firstId - 1 }
}

interface IdRange {
  readonly from: number
  readonly to: number
}

function windowBetween(last: LastStored, first: LosingFirst, ids: IdRange | null, nowMs: number): Gap {
  const { symbol, eventType, epoch, cause } = first
  const begins = ids?.from ?? (last.id === null ? last.timeMs : first.id)
  return {
    // Ingestion may record a window with the same start.
    gap_id: `${gapId(symbol, eventType, epoch, begins)}/${cause}`,
    revision: 1,
    symbol,
    event_type: eventType,
    epoch,
    from_id: ids?.from ?? null,
    to_id: ids?.to ?? null,
    from_time: last.timeMs,
    to_time: Math.max(last.timeMs, first.timeMs),
    cause,
    status: 'unrecoverable',
    reason: last.epoch === epoch ? REASONS[cause] : `${REASONS[cause]}; ${edges(last, first)}`,
    detected_at: nowMs,
    updated_at: nowMs,
    closed_at: nowMs,
  }
}

/** Describes the last and first known id around a reset of the ids. */
function edges(last: LastStored, first: FirstAfterLoss): string {
  return `ids after ${last.id} of epoch ${last.epoch} and before ${first.id} of epoch ${first.epoch}`
}
