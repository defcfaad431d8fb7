import type { EventType } from '../foundation/market/event.ts'
import { type Gap, gapId } from '../foundation/market/gap.ts'
import type { LastStored } from '../foundation/store/last-stored.ts'
import type { LossCause } from '../foundation/store/losses.ts'
import type { LostIds } from '../foundation/store/lost-ids.ts'
import type { SequenceStart } from '../foundation/store/sequence-starts.ts'

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
  /** Names that loss. */
  readonly loss: string
}

const REASONS: Readonly<Record<Exclude<LossCause, 'start'>, string>> = {
  retention: 'left Kafka before it was stored',
  recreated: 'the topic was deleted and made again: what stood unread in it is gone',
}

/** One that does follow a loss, of which `start` is none. */
export type LosingFirst = FirstAfterLoss & { readonly cause: Exclude<LossCause, 'start'> }

/**
 * Where the consumer began to store a symbol's trades or aggTrades: at the first that it read. Older backfilled ones may
 * be stored too: what fills an old gap comes through the topic later.
 */
export function sequenceStarts(firsts: readonly FirstAfterLoss[]): SequenceStart[] {
  return firsts.flatMap(({ symbol, eventType, epoch, id, timeMs, cause }) =>
    cause === 'start' && eventType !== 'bookTicker' ? [{ symbol, eventType, epoch, id, timeMs }] : [],
  )
}

/** The others: those that follow a loss. */
export function afterRealLoss(firsts: readonly FirstAfterLoss[]): LosingFirst[] {
  return firsts.flatMap((first) => (first.cause === 'start' ? [] : [{ ...first, cause: first.cause }]))
}

/** What a loss has taken of a symbol and type. */
export interface AfterLoss {
  /** Rows of the ledger for what nobody can fill: quotes, and trades over a reset of the ids. */
  readonly windows: Gap[]
  /** Trades that ingestion is to be asked for. */
  readonly lost: Array<{ readonly key: string; readonly lost: LostIds }>
}

/**
 * What Kafka no longer had for us: from the last stored event of a symbol and type to the first one seen after. Of
 * bookTicker only the window is known, and of trades too when the exchange has begun their ids anew in between: nobody
 * can say where the old ones ended.
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
    // A symbol that has moved to another partition may show twice in a batch.
    if (first.eventType !== 'bookTicker' && !lost.has(stream))
      lost.set(stream, { key: `${first.loss}:${stream}`, lost: lostIds(last, first, nowMs) })
    if (last.epoch === first.epoch && last.id !== null) continue
    if (!liesBetween(last, first)) continue
    const gap = windowBetween(last, first, nowMs)
    if (!windows.has(gap.gap_id)) windows.set(gap.gap_id, gap)
  }
  return { windows: [...windows.values()], lost: [...lost.values()] }
}

/** Also where the events follow each other: backfilled trades may have been among the lost messages. */
function lostIds(last: LastStored, first: LosingFirst, nowMs: number): LostIds {
  const { symbol, eventType, id, cause } = first
  if (eventType === 'bookTicker') throw new TypeError('Quotes have no ids')
  const isBetween = last.epoch === first.epoch && last.id !== null && last.id + 1 < id
  return {
    symbol,
    eventType,
    epoch: last.epoch,
    range: isBetween ? { from: (last.id ?? 0) + 1, to: id - 1 } : null,
    fromMs: last.timeMs,
    // Of two trades the later id may have the earlier time.
    toMs: Math.max(last.timeMs, first.timeMs),
    cause,
    detectedMs: nowMs,
  }
}

/** What is delivered again may be what is stored last, or older: nothing lies between. */
function liesBetween(last: LastStored, first: FirstAfterLoss): boolean {
  if (last.id === null) return last.timeMs < first.timeMs
  // Whoever counted the epochs may have begun anew too: then it is the time that tells what is later.
  return last.epoch < first.epoch || last.timeMs < first.timeMs
}

function windowBetween(last: LastStored, first: LosingFirst, nowMs: number): Gap {
  const { symbol, eventType, epoch, cause } = first
  const begins = last.id === null ? last.timeMs : first.id
  return {
    // Ingestion may have a window at the same time.
    gap_id: `${gapId(symbol, eventType, epoch, begins)}/${cause}`,
    revision: 1,
    symbol,
    event_type: eventType,
    epoch,
    from_id: null,
    to_id: null,
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

/** What is known where the ids began anew. */
function edges(last: LastStored, first: FirstAfterLoss): string {
  return `ids after ${last.id} of epoch ${last.epoch} and before ${first.id} of epoch ${first.epoch}`
}
