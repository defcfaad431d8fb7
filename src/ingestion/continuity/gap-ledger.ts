import { type Gap, gapId } from '../../foundation/market/gap.ts'
import type { GapCause } from '../../foundation/market/gap-causes.ts'
import { type IdRange, subtract } from '../../foundation/market/id-ranges.ts'
import { type Clock, Wake } from '../../foundation/runtime/clock.ts'
import { Tally } from '../../foundation/telemetry/tally.ts'
import {
  asIdGap,
  emptied,
  type GapSequence,
  type IdGap,
  isSameSequence,
  isTradeGap,
  rangeOf,
  remember,
} from './gap-rows.ts'

export const REASON_RESET = 'the exchange restarted its ids'
/** Maximum of PostgreSQL's integer. */
const MAX_REVISION = 2 ** 31 - 1

const REASON_QUOTES = 'the exchange keeps no past quotes'
export const REASON_DEPTH = 'past order book updates cannot be fetched'

/** Holds the open gaps, and publishes every change as a new revision. Specification: L1 to L7. */
export class GapLedger {
  readonly #publish: (gap: Gap) => void
  readonly #wallMs: () => number
  readonly #open = new Map<string, IdGap>()
  /** Gaps that this process closed last, at most {@link MAX_CLOSED}. */
  readonly #closed = new Map<string, IdGap>()
  /** Rows without ids that it published last, with the same limit. */
  readonly #windows = new Map<string, Gap>()
  /** Gaps opened by this process, by event type and cause. */
  readonly opened = new Tally()
  /** Gaps of ids closed by this process, by event type and status. */
  readonly closed = new Tally()
  /** Windows without quotes that it entered, by `count` or `ms` and cause. */
  readonly outages = new Tally()

  /** How often a gap was added to the open ones. */
  added = 0
  /** Rings when {@link added} rises. */
  readonly news: Wake

  /** @param publish sends a revision to the gaps topic, in order */
  constructor(publish: (gap: Gap) => void, wallMs: () => number, clock?: Clock) {
    this.#publish = publish
    this.#wallMs = wallMs
    this.news = new Wake(clock)
  }

  isOpen({ gap_id }: IdGap): boolean {
    return this.#open.has(gap_id)
  }

  get openGaps(): readonly IdGap[] {
    return [...this.#open.values()]
  }

  /** Returns the known rows of a stream and epoch, open and closed. */
  rowsOf(sequence: GapSequence): IdGap[] {
    return [...this.#open.values(), ...this.#closed.values()].filter((gap) => isSameSequence(gap, sequence))
  }

  /** Publishes the rows again, open ones last: a consumer may not have read them in a deleted topic. */
  publishAgain(): void {
    for (const gap of [...this.#windows.values(), ...this.#closed.values(), ...this.#open.values()])
      this.#publish(gap)
  }

  /**
   * Restores rows of an earlier instance; publishes nothing. Closed ones too, because an older
   * instance may still enter their ids, and rows without ids, because they have used revisions.
   */
  restore(rows: readonly Gap[]): void {
    for (const row of rows) {
      const [gap] = asIdGap(row)
      if (gap === undefined) remember(this.#windows, row)
      else if (gap.status === 'open') this.#hold(gap)
      else remember(this.#closed, gap)
    }
  }

  /**
   * Enters missing ids: as an open gap, or if REST has no past events of the type, as lost ones.
   * @param window null times are unknown
   */
  open(
    sequence: GapSequence,
    { from, to }: IdRange,
    cause: GapCause,
    { fromMs, toMs }: { readonly fromMs: number | null; readonly toMs: number | null },
  ): IdGap {
    const nowMs = this.#wallMs()
    const { symbol, event_type, epoch } = sequence
    const id = gapId(symbol, event_type, epoch, from)
    this.opened.add(event_type, cause)
    const gap: IdGap = {
      gap_id: id,
      revision: this.#nextRevision(id),
      ...{ symbol, event_type, epoch, from_id: from, to_id: to },
      // A sequence known only from a ledger row has no time yet.
      from_time: fromMs === 0 ? null : fromMs,
      to_time: toMs,
      ...{ cause, status: 'open', reason: null, detected_at: nowMs, updated_at: nowMs, closed_at: null },
    }
    if (isTradeGap(gap)) return this.#put(gap)
    this.closed.add(event_type, 'unrecoverable')
    return this.#put({ ...gap, status: 'unrecoverable', reason: REASON_DEPTH, closed_at: nowMs })
  }

  /**
   * Adopts a row of an older instance. Ids of a gap of this process stay there: no id is in two rows.
   *
   * @param missing those of its ids that may be missing
   */
  adopt(row: IdGap, missing: readonly IdRange[] = [rangeOf(row)]): void {
    const known = this.#open.get(row.gap_id) ?? this.#closed.get(row.gap_id)
    const others = this.rowsOf(row)
    const own = subtract(missing, others.map(rangeOf))
    const revision = row.revision + 1
    if (known !== undefined) {
      // The other instance's row may have replaced ours in the table, and lacks our ids.
      if (row.revision >= known.revision) this.#put({ ...known, revision, updated_at: this.#wallMs() })
      for (const range of own) this.#put(this.#remainder(row, range))
    } else if (own[0]?.from !== row.from_id || own[0].to !== row.to_id)
      this.#split({ ...row, revision }, own, others)
    else if (row.status === 'open') this.#hold(row)
    // If Kafka loses its ids, this row is reopened.
    else remember(this.#closed, row)
  }

  /** Notes a row that an import has closed. If the gap was reopened meanwhile, it stays open. */
  imported(row: IdGap): void {
    const known = this.#open.get(row.gap_id) ?? this.#closed.get(row.gap_id)
    if (known !== undefined && known.revision > row.revision) return
    if (known?.status === 'open')
      this.#put({ ...known, revision: row.revision + 1, updated_at: this.#wallMs() })
    else remember(this.#closed, row)
  }

  /**
   * Takes over a request to reopen a gap, with a row of the next revision: a row and a request with
   * the same revision would conflict. Ids of another open gap stay there, so no id is in two rows.
   */
  takeOver(request: IdGap): void {
    const known = this.#open.get(request.gap_id)
    // Two consumers may send the same request, the second after the gap was closed.
    const before = known?.revision ?? this.#closed.get(request.gap_id)?.revision ?? 0
    const revision = Math.max(request.revision, before) + 1
    const others = this.openGaps.filter((gap) => isSameSequence(gap, request))
    const own = subtract([rangeOf(request)], others.map(rangeOf))
    if (known === undefined) {
      this.opened.add(request.event_type, request.cause)
      this.#split({ ...request, revision }, own, others)
      return
    }
    const gap = this.#put({ ...known, revision, updated_at: this.#wallMs() })
    for (const range of own) this.#put({ ...this.#remainder(gap, range), cause: request.cause })
  }

  /** Narrows a row to its own ids, which no other row has; without any it becomes a row without ids. */
  #split(row: IdGap, [first, ...rest]: readonly IdRange[], others: readonly IdGap[]): void {
    const nowMs = this.#wallMs()
    const gap = { ...row, updated_at: nowMs }
    const heir = others.find(({ from_id, to_id }) => from_id <= row.from_id && row.from_id <= to_id)
    // A part of it may get this row's id later, when no instance remembers this row's revision.
    if (heir !== undefined && heir.revision <= row.revision)
      this.#put({ ...heir, revision: row.revision + 1, updated_at: nowMs })
    if (first === undefined) this.#putWindow(emptied(gap, others, nowMs))
    else this.#put({ ...gap, from_id: first.from, to_id: first.to })
    for (const range of rest) this.#put(this.#remainder(gap, range))
  }

  /** Enters a reset of ids. Whether old ids followed the last one between the two times is never known. */
  reset(sequence: GapSequence, fromMs: number, toMs: number): void {
    const { symbol, event_type, epoch } = sequence
    // The reset has its own id, because a gap may begin at any of the new ids.
    const id = `${symbol}/${event_type}/${epoch}/reset`
    this.#putWindow(this.#windowRow(sequence, id, fromMs, toMs, 'reset', REASON_RESET))
  }

  /** Enters a window in which a bookTicker stream was out; it cannot be filled. */
  outage(symbol: string, fromMs: number, toMs: number, cause: GapCause, reason = REASON_QUOTES): Gap {
    this.outages.add('count', cause)
    this.outages.add('ms', cause, Math.max(0, toMs - fromMs))
    return this.#putWindow(this.outageRow(symbol, fromMs, toMs, cause, reason))
  }

  /** Returns the row of {@link outage} without publishing it. */
  outageRow(symbol: string, fromMs: number, toMs: number, cause: GapCause, reason = REASON_QUOTES): Gap {
    const sequence = { symbol, event_type: 'bookTicker', epoch: 0 } as const
    return this.#windowRow(sequence, gapId(symbol, 'bookTicker', 0, fromMs), fromMs, toMs, cause, reason)
  }

  #windowRow(
    { symbol, event_type, epoch }: Pick<Gap, keyof GapSequence>,
    id: string,
    fromMs: number,
    toMs: number,
    cause: GapCause,
    reason: string,
  ): Gap {
    const nowMs = this.#wallMs()
    // A clock that was set back a little must not reverse the window.
    const sinceMs = fromMs === 0 ? toMs : fromMs
    const untilMs = Math.max(sinceMs, toMs)
    return {
      // After a clock step, a longer window need not contain a shorter one with the same start.
      gap_id: cause === 'clock' ? `${id}/${cause}/${untilMs}` : id,
      // Consecutive instances may end a window with the same start differently: the longer one
      // wins.
      revision: Math.min(MAX_REVISION, 1 + untilMs - sinceMs),
      ...{
        symbol,
        event_type,
        epoch,
        from_id: null,
        to_id: null,
        from_time: sinceMs,
        to_time: untilMs,
        cause,
      },
      ...{ status: 'unrecoverable', reason, detected_at: nowMs, updated_at: nowMs, closed_at: nowMs },
    }
  }

  /** Closes a gap as `filled`: Kafka has acknowledged every id. */
  filled(gap: IdGap): void {
    this.#close(gap, rangeOf(gap), 'filled', null)
  }

  /**
   * Closes ids of a gap as `unrecoverable`. Ids before them are filled, under the gap's id. The
   * lost ids and those after them get new gap ids; if nothing was filled, the lost ids keep the
   * gap's id.
   */
  unrecoverable({ gap_id, ...given }: IdGap, lost: IdRange, reason: string): void {
    const gap = this.#open.get(gap_id) ?? { gap_id, ...given }
    const { from_id: from, to_id: to } = gap
    const isPartFilled = lost.from > from
    if (isPartFilled) this.#close(gap, { from, to: lost.from - 1 }, 'filled', null)
    this.#close(isPartFilled ? this.#remainder(gap, lost) : gap, lost, 'unrecoverable', reason)
    if (lost.to < to) this.#put(this.#remainder(gap, { from: lost.to + 1, to }))
  }

  #remainder(gap: IdGap, range: IdRange): IdGap {
    const id = gapId(gap.symbol, gap.event_type, gap.epoch, range.from)
    const revision = Math.max(gap.revision, this.#nextRevision(id))
    const updated_at = this.#wallMs()
    return { ...gap, gap_id: id, revision, from_id: range.from, to_id: range.to, updated_at }
  }

  /** The revision rises, since ids that were filled or moved may go missing again under that row's id. */
  #nextRevision(id: string): number {
    const known = [this.#closed.get(id), this.#windows.get(id)]
    return 1 + Math.max(0, ...known.map((row) => row?.revision ?? 0))
  }

  #putWindow(window: Gap): Gap {
    remember(this.#windows, window)
    this.#publish(window)
    return window
  }

  #hold(gap: IdGap): void {
    this.#open.set(gap.gap_id, gap)
    this.added++
    this.news.ring()
  }

  #put(gap: IdGap): IdGap {
    if (gap.status === 'open') this.#hold(gap)
    else remember(this.#closed, gap)
    this.#publish(gap)
    return gap
  }

  #close(gap: IdGap, { from, to }: IdRange, status: 'filled' | 'unrecoverable', reason: string | null): void {
    const nowMs = this.#wallMs()
    // The gap may have been reopened since the caller took it.
    const known = this.#open.get(gap.gap_id)
    this.#open.delete(gap.gap_id)
    this.closed.add(gap.event_type, status)
    const revision = known === undefined ? gap.revision : known.revision + 1
    const end = { status, reason, updated_at: nowMs, closed_at: nowMs }
    const closed = { ...gap, revision, from_id: from, to_id: to, ...end }
    remember(this.#closed, closed)
    this.#publish(closed)
  }
}
