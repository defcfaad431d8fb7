import type { EventType } from '../../foundation/market/event.ts'
import { type Gap, gapId } from '../../foundation/market/gap.ts'
import type { IdRange } from '../../foundation/market/id-ranges.ts'
import { Tally } from '../../foundation/telemetry/tally.ts'
import type { ClockWindow } from './clock-window.ts'

/** A gap of ids, of trade or aggTrade; those of bookTicker are windows and closed from the start. */
export interface IdGap extends Gap {
  readonly event_type: 'trade' | 'aggTrade'
  readonly from_id: number
  readonly to_id: number
}

export const REASON_RESET = 'the exchange began its ids anew'
/** An integer of PostgreSQL. */
const MAX_REVISION = 2 ** 31 - 1

const REASON_QUOTES = 'the exchange keeps no past quotes'

/**
 * The ledger of what is missing, as far as it is open. Every change is published as a new revision; what is closed
 * is published and forgotten. Specification: L1 to L5.
 */
export class GapLedger {
  readonly #publish: (gap: Gap) => void
  readonly #onSettled: (gap: IdGap, lost: IdRange) => void
  readonly #wallMs: () => number
  readonly #open = new Map<string, IdGap>()
  /** Gaps that this process has opened, by event type and cause. */
  readonly opened = new Tally()
  /** Gaps of ids that it has closed, by event type and status. */
  readonly closed = new Tally()
  /** Windows without quotes that it has entered, by `count` or `ms` and cause. */
  readonly outages = new Tally()

  /**
   * @param publish takes a revision to the gaps topic, in order
   * @param onSettled ids were entered as unrecoverable: they are no longer to be looked for
   */
  constructor(
    publish: (gap: Gap) => void,
    onSettled: (gap: IdGap, lost: IdRange) => void,
    wallMs: () => number,
  ) {
    this.#publish = publish
    this.#onSettled = onSettled
    this.#wallMs = wallMs
  }

  isOpen({ gap_id }: IdGap): boolean {
    return this.#open.has(gap_id)
  }

  get openGaps(): readonly IdGap[] {
    return [...this.#open.values()]
  }

  /** Takes over what an earlier instance left; publishes nothing. */
  restore(openGaps: readonly IdGap[]): void {
    for (const gap of openGaps) this.#open.set(gap.gap_id, gap)
  }

  open(
    sequence: { readonly symbol: string; readonly eventType: IdGap['event_type']; readonly epoch: number },
    range: IdRange,
    cause: string,
    window: { readonly fromMs: number | null; readonly toMs: number | null },
  ): IdGap {
    const nowMs = this.#wallMs()
    const { symbol, eventType, epoch } = sequence
    const gap: IdGap = {
      gap_id: gapId(symbol, eventType, epoch, range.from),
      revision: 1,
      symbol,
      event_type: eventType,
      epoch,
      from_id: range.from,
      to_id: range.to,
      // A sequence of which only a ledger row is known has no time yet.
      from_time: window.fromMs === 0 ? null : window.fromMs,
      to_time: window.toMs,
      cause,
      status: 'open',
      reason: null,
      detected_at: nowMs,
      updated_at: nowMs,
      closed_at: null,
    }
    this.opened.add(eventType, cause)
    return this.#put(gap)
  }

  /**
   * The exchange has begun ids anew: whether any came behind the last of the old ones, between the two times, can
   * never be known.
   */
  reset(
    sequence: { readonly symbol: string; readonly eventType: IdGap['event_type']; readonly epoch: number },
    firstId: number,
    fromMs: number,
    toMs: number,
  ): void {
    const { symbol, eventType, epoch } = sequence
    this.#publishWindow(symbol, eventType, epoch, firstId, fromMs, toMs, 'reset', REASON_RESET)
  }

  /** A window in which a bookTicker stream was out. Nothing can fill it: the exchange keeps no past quotes. */
  outage(symbol: string, fromMs: number, toMs: number, cause: string): void {
    this.#publishOutage(symbol, fromMs, toMs, cause, REASON_QUOTES)
  }

  /** The same where no one clock shows when it was. */
  clockOutage(symbol: string, { fromMs, toMs, reason }: ClockWindow): void {
    this.#publishOutage(symbol, fromMs, toMs, 'clock', reason)
  }

  #publishOutage(symbol: string, fromMs: number, toMs: number, cause: string, reason: string): void {
    this.outages.add('count', cause)
    this.outages.add('ms', cause, Math.max(0, toMs - fromMs))
    this.#publishWindow(symbol, 'bookTicker', 0, fromMs, fromMs, toMs, cause, reason)
  }

  #publishWindow(
    symbol: string,
    eventType: EventType,
    epoch: number,
    from: number,
    fromMs: number,
    toMs: number,
    cause: string,
    reason: string,
  ): void {
    const nowMs = this.#wallMs()
    // A clock that was set back a little must not turn the window round.
    const sinceMs = fromMs === 0 ? toMs : fromMs
    const untilMs = Math.max(sinceMs, toMs)
    this.#publish({
      gap_id: gapId(symbol, eventType, epoch, from),
      // Instances that follow each other may end a window of the same start differently: the longer one stands.
      revision: Math.min(MAX_REVISION, 1 + untilMs - sinceMs),
      symbol,
      event_type: eventType,
      epoch,
      from_id: null,
      to_id: null,
      from_time: sinceMs,
      to_time: untilMs,
      cause,
      status: 'unrecoverable',
      reason,
      detected_at: nowMs,
      updated_at: nowMs,
      closed_at: nowMs,
    })
  }

  /** Every id of the gap is acknowledged by Kafka. */
  filled(gap: IdGap): void {
    this.#close(gap, { from: gap.from_id, to: gap.to_id }, 'filled', null)
  }

  /**
   * Ids of the gap that cannot be had. What lies before them is filled, under the gap's own id; they and what lies
   * behind get ids of their own, except that a gap keeps its id where nothing was filled.
   *
   * @returns the gap of what lies behind, still open; null when nothing does
   */
  unrecoverable(gap: IdGap, lost: IdRange, reason: string): IdGap | null {
    const { from_id: from, to_id: to } = gap
    if (lost.from > from) {
      this.#close(gap, { from, to: lost.from - 1 }, 'filled', null)
      this.#close(this.#remainder(gap, lost), lost, 'unrecoverable', reason)
    } else {
      this.#close(gap, lost, 'unrecoverable', reason)
    }
    this.#onSettled(gap, lost)
    return lost.to < to ? this.#put(this.#remainder(gap, { from: lost.to + 1, to })) : null
  }

  #remainder(gap: IdGap, range: IdRange): IdGap {
    const id = gapId(gap.symbol, gap.event_type, gap.epoch, range.from)
    return {
      ...gap,
      gap_id: id,
      revision: 1,
      from_id: range.from,
      to_id: range.to,
      updated_at: this.#wallMs(),
    }
  }

  #put(gap: IdGap): IdGap {
    this.#open.set(gap.gap_id, gap)
    this.#publish(gap)
    return gap
  }

  #close(gap: IdGap, { from, to }: IdRange, status: 'filled' | 'unrecoverable', reason: string | null): void {
    const nowMs = this.#wallMs()
    const known = this.#open.delete(gap.gap_id)
    this.closed.add(gap.event_type, status)
    const revision = known ? gap.revision + 1 : gap.revision
    this.#publish({
      ...gap,
      revision,
      from_id: from,
      to_id: to,
      status,
      reason,
      updated_at: nowMs,
      closed_at: nowMs,
    })
  }
}

/** A row as a gap of ids: none for windows of time. */
export function asIdGap(gap: Gap): IdGap[] {
  const { event_type, from_id, to_id } = gap
  return event_type === 'bookTicker' || from_id === null || to_id === null
    ? []
    : [{ ...gap, event_type, from_id, to_id }]
}
