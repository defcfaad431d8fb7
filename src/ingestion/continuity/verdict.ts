import type { IdRange } from '../../foundation/market/id-ranges.ts'

/** An event of a sequence, as far as continuity is concerned. */
export interface Observed {
  /** Trade id or aggregate trade id. */
  readonly id: number
  /** Trade time `T`, milliseconds since the Unix epoch. */
  readonly timeMs: number
  /** The last trade id `l` of an aggTrade; negative or absent for a trade. */
  readonly lastTradeId?: number
  /** The connection that delivered it. */
  readonly connection: number
  /** When: what is held for another connection is observed later than what came after it. Without it, this is the order. */
  readonly receiptMs?: number
}

/** What to do with an observed event. Specification: S1 to S10. */
export type Verdict<Event extends Observed> =
  /** Forward it; `missing` are the ids between it and those known before, if any. */
  | { readonly kind: 'next'; readonly missing: IdRange | null; readonly released: number }
  /** Forward it: it belongs into a hole. */
  | { readonly kind: 'late' }
  /** Drop it: it was forwarded before. */
  | { readonly kind: 'duplicate' }
  /** Drop it, and say so: another event was forwarded under its id. */
  | { readonly kind: 'second' }
  /** Drop it, and say so: it is of the sequence before a reset, which nobody can continue. */
  | { readonly kind: 'over' }
  /** Keep it: it may be the beginning of a new sequence. */
  | { readonly kind: 'held'; readonly released: number }
  /** The exchange has begun a new sequence, and there is no epoch left for it. */
  | { readonly kind: 'exhausted' }
  /** The exchange has begun a new sequence: forward these, oldest first; `missing` lie between them. */
  | {
      readonly kind: 'reset'
      readonly events: readonly Event[]
      readonly missing: readonly IdRange[]
      readonly released: number
    }

/* `released`: how many events that were held before turn out to be duplicates. */
