import { CommitChain, chainPath } from '../foundation/archive/commit-chain.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import type { PartitionOrigin } from '../foundation/kafka/partition.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'

const DAY_MS = 86_400_000

/** Time after midnight in which events of the day before still arrive in order. */
const SETTLE_MS = 10 * 60_000

/** The end of each partition of the archived topics. */
export type ReadEnds = () => Promise<ReadonlyArray<PartitionOrigin & { readonly end: number }>>

/**
 * Decides whether a day is over: the ends of all partitions were read after it, and every chain has
 * reached them. What arrives later is added to the published day.
 */
export class DayEnds {
  readonly #store: ObjectStore
  readonly #readEnds: ReadEnds
  readonly #clock: Pick<Clock, 'wallMicros'>
  #ends: { readonly atMs: number; readonly of: Awaited<ReturnType<ReadEnds>> } | null = null
  #reached: ReadonlySet<string> = new Set()

  constructor(store: ObjectStore, readEnds: ReadEnds, clock: Pick<Clock, 'wallMicros'>) {
    this.#store = store
    this.#readEnds = readEnds
    this.#clock = clock
  }

  /** @param date UTC, like `2026-01-31` */
  async isOver(date: string): Promise<boolean> {
    const settledMs = Date.parse(date) + DAY_MS + SETTLE_MS
    const nowMs = wallMs(this.#clock)
    if (nowMs < settledMs) return false
    if (this.#ends === null || this.#ends.atMs < settledMs) {
      this.#ends = { atMs: nowMs, of: await this.#readEnds() }
      this.#reached = new Set()
    }
    for (const one of this.#ends.of) {
      if (this.#reached.has(chainPath(one))) continue
      const head = await new CommitChain(this.#store, one).head()
      if (one.end > 0 && (head === null || head.nextOffset < one.end)) return false
      this.#reached = new Set([...this.#reached, chainPath(one)])
    }
    return true
  }
}
