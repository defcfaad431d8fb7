import type { IdRange } from '../../foundation/market/id-ranges.ts'

/** The fields of an event that a sequence uses. */
export interface Observed {
  /** The first id that the event covers: `id`, except in an order book update, which covers a range. */
  readonly firstId: number
  /** The last id that it covers. */
  readonly id: number
  /** Trade time `T`, or event time `E` of an order book update; milliseconds since the Unix epoch. */
  readonly timeMs: number
  /** The last trade id `l` of an aggTrade; negative or absent for a trade. */
  readonly lastTradeId?: number
  readonly connection: number
  /** When it was received; a held event is observed after later ones. Without it, the order counts. */
  readonly receiptMs?: number
}

/** The decision about an event. `released`: held duplicates. Specification: S1 to S10. */
export type Verdict<Event extends Observed> =
  /** Forward it; `missing` are the ids between it and those known before, if any. */
  | { readonly kind: 'next'; readonly missing: IdRange | null; readonly released: number }
  /** Forward it: it fills part of a hole. */
  | { readonly kind: 'late' }
  /** Drop it: it was forwarded before. */
  | { readonly kind: 'duplicate' }
  /** Drop it and report it: another event was forwarded under its id. */
  | { readonly kind: 'second' }
  /** Drop it and report it: it belongs to the sequence before a reset, which has ended. */
  | { readonly kind: 'over' }
  /** Keep it: it may begin a new sequence. */
  | { readonly kind: 'held'; readonly released: number }
  /** The exchange has begun a new sequence, but no epoch is left for it. */
  | { readonly kind: 'exhausted' }
  /** The exchange has begun a new sequence: forward these, oldest first; `missing` is in between. */
  | {
      readonly kind: 'reset'
      readonly events: readonly Event[]
      readonly missing: readonly IdRange[]
      readonly released: number
    }
