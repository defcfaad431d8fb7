import { isSequenced, type StreamType, streamName } from '../../foundation/market/event.ts'
import type { GapCause } from '../../foundation/market/gap-causes.ts'
import { type IdRange, normalise, subtract } from '../../foundation/market/id-ranges.ts'
import type { EventMark, OutgoingMessage } from '../messages/message.ts'
import type { Continuity, StreamEvent } from './continuity.ts'
import type { GapLedger } from './gap-ledger.ts'
import { rangeOf } from './gap-rows.ts'

/** Discarded events of a stream are entered together: after a quiet time, or after a minute. */
const QUIET_MS = 2000
const ENTER_EVERY_MS = 60_000

interface DiscardedStream {
  readonly symbol: string
  readonly type: StreamType
  readonly epoch: number
  readonly cause: GapCause
  readonly sinceMs: number
  lastMs: number
  /** The ids, of types whose ids tell what is missing. */
  ranges: IdRange[]
  /** Receipts of quotes, or times at the exchange, in milliseconds since the Unix epoch. */
  fromMs: number
  toMs: number
}

type Sequences = Pick<Continuity<StreamEvent>, 'lose' | 'missingIn' | 'abandonIfOver'>

/** Collects received events that Kafka did not take, and enters them into the ledger (K9). */
export class DiscardedEvents {
  readonly #continuity: Sequences
  readonly #ledger: GapLedger
  /** By stream. */
  readonly #streams = new Map<string, DiscardedStream>()
  /** Discarded quotes after which none was kept yet, by symbol. */
  readonly #unfollowed = new Map<string, DiscardedStream>()

  constructor(continuity: Sequences, ledger: GapLedger) {
    this.#continuity = continuity
    this.#ledger = ledger
  }

  /** @param nowMs on the monotonic clock */
  add({ symbol, type, epoch, firstId, id, timeMs }: EventMark, cause: GapCause, nowMs: number): void {
    const stream = streamName(symbol, type)
    const range = { from: firstId, to: id }
    // At once, because a gap that contains the id must not become `filled`.
    if (isSequenced(type)) this.#continuity.lose(stream, epoch, range)
    const known = this.#streams.get(stream)
    if (known !== undefined && (known.epoch !== epoch || known.cause !== cause)) this.#enter(stream, known)
    const one: DiscardedStream = this.#streams.get(stream) ?? {
      ...{ symbol, type, epoch, cause, sinceMs: nowMs, lastMs: nowMs },
      ...{ ranges: [], fromMs: timeMs, toMs: timeMs },
    }
    one.lastMs = nowMs
    one.fromMs = Math.min(one.fromMs, timeMs)
    one.toMs = Math.max(one.toMs, timeMs)
    const last = one.ranges.at(-1)
    if (last !== undefined && last.to === firstId - 1) one.ranges[one.ranges.length - 1] = { ...last, to: id }
    else one.ranges.push(range)
    this.#streams.set(stream, one)
    if (!isSequenced(type)) this.#unfollowed.set(symbol, one)
  }

  /** Puts the window of discarded quotes into the next quote: the process may end before the ledger has it. */
  onKept(message: OutgoingMessage): void {
    const { mark } = message
    if (mark === null || isSequenced(mark.type)) return
    const discarded = this.#unfollowed.get(mark.symbol)
    if (discarded === undefined) return
    this.#unfollowed.delete(mark.symbol)
    // A checkpoint that contains the quote has to contain the row.
    const stream = streamName(mark.symbol, mark.type)
    if (this.#streams.get(stream) === discarded) this.#enter(stream, discarded)
    const { symbol, fromMs, toMs, cause } = discarded
    message.endOutage?.(this.#ledger.outageRow(symbol, fromMs, toMs, cause))
  }

  /** Enters what is due, or everything. */
  enter(nowMs: number, everything = false): void {
    for (const [stream, one] of this.#streams) {
      const isDue = nowMs - one.lastMs >= QUIET_MS || nowMs - one.sinceMs >= ENTER_EVERY_MS
      if (everything || isDue) this.#enter(stream, one)
    }
  }

  #enter(stream: string, { symbol, type, epoch, cause, ranges, fromMs, toMs }: DiscardedStream): void {
    this.#streams.delete(stream)
    if (!isSequenced(type)) {
      this.#ledger.outage(symbol, fromMs, toMs, cause)
      return
    }
    // Some may have arrived again meanwhile, from another connection or by backfill of an open gap.
    const lacking = normalise(ranges).flatMap(({ from: from_id, to: to_id }) =>
      this.#continuity.missingIn(stream, { epoch, from_id, to_id }),
    )
    const sequence = { symbol, event_type: type, epoch }
    const named = this.#ledger.rowsOf(sequence).filter(({ status }) => status !== 'filled')
    for (const missing of subtract(lacking, named.map(rangeOf))) {
      const gap = this.#ledger.open(sequence, missing, cause, { fromMs, toMs })
      // REST would return trades of the current epoch instead.
      if (gap.status === 'open') this.#continuity.abandonIfOver(gap)
    }
  }
}
