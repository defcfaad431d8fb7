import { CommitChain, chainPath } from '../foundation/archive/commit-chain.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import type { PartitionOrigin } from '../foundation/kafka/partition.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'

const DAY_MS = 86_400_000

/** Time after midnight in which events of the day before still arrive in order. */
const SETTLE_MS = 10 * 60_000

/** While a chain has not reached the ends, they are read again: a topic may have been recreated. */
const REREAD_MS = 3_600_000

/** The end of each partition of the archived topics. */
export type ReadEnds = () => Promise<ReadonlyArray<PartitionOrigin & { readonly end: number }>>

/**
 * Decides whether a day is over: the ends of all partitions were read after it, and every chain has
 * reached them. What arrives later is added to the published day.
 *
 * The clock of this machine may be wrong. So there must also be rows of a later day, or a second day
 * must have passed: then nothing is being recorded.
 */
export class DayEnds {
  readonly #store: ObjectStore
  readonly #readEnds: ReadEnds
  readonly #clock: Pick<Clock, 'wallMicros'>
  #readAtMs = Number.NEGATIVE_INFINITY
  /** Ends that chains have not reached, by chain. */
  #waiting: ReadonlyMap<string, PartitionOrigin & { readonly end: number }> = new Map()

  constructor(store: ObjectStore, readEnds: ReadEnds, clock: Pick<Clock, 'wallMicros'>) {
    this.#store = store
    this.#readEnds = readEnds
    this.#clock = clock
  }

  /**
   * @param date UTC, like `2026-01-31`
   * @param lastDate the last day of which there are rows
   */
  async isOver(date: string, lastDate: string): Promise<boolean> {
    const settledMs = Date.parse(date) + DAY_MS + SETTLE_MS
    const nowMs = wallMs(this.#clock)
    if (nowMs < settledMs + (lastDate > date ? 0 : DAY_MS)) return false
    const isAfterDay = this.#readAtMs >= settledMs
    if (!isAfterDay || (this.#waiting.size > 0 && nowMs - this.#readAtMs >= REREAD_MS)) {
      const ends = await this.#readEnds()
      const before = isAfterDay ? this.#waiting : null
      // A chain that had reached its end need not reach a later one.
      const wanted = ends.filter((one) => before === null || before.has(chainPath(one)))
      this.#waiting = new Map(
        wanted.map((one) => {
          const path = chainPath(one)
          return [path, { ...one, end: Math.min(one.end, before?.get(path)?.end ?? one.end) }]
        }),
      )
      this.#readAtMs = nowMs
    }
    for (const [path, one] of this.#waiting) {
      const head = await new CommitChain(this.#store, one).head()
      if (one.end > 0 && (head === null || head.nextOffset < one.end)) return false
      this.#waiting = new Map([...this.#waiting].filter(([other]) => other !== path))
    }
    return true
  }
}
