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

/** The ends of all partitions at one time. */
interface Reading {
  readonly atMs: number
  /** When the topics were last read. */
  topicsAtMs: number
  /** Ends that chains have not reached, by chain. */
  readonly waiting: Map<string, PartitionOrigin & { readonly end: number }>
}

/**
 * Decides whether a day is over: the ends of all partitions were read after it and after the last rows
 * that were added to it, and every chain has reached them. What arrives later is added to the
 * published day.
 *
 * The clock of this machine may be wrong. So there must also be rows of a later day, or a second day
 * must have passed: then nothing is being recorded.
 */
export class DayEnds {
  readonly #store: ObjectStore
  readonly #readEnds: ReadEnds
  readonly #clock: Pick<Clock, 'wallMicros'>
  /** The newest one that is reached, and later ones. */
  #readings: Reading[] = []

  constructor(store: ObjectStore, readEnds: ReadEnds, clock: Pick<Clock, 'wallMicros'>) {
    this.#store = store
    this.#readEnds = readEnds
    this.#clock = clock
  }

  /**
   * @param date UTC, like `2026-01-31`
   * @param lastDate the last day of which there are rows
   * @param committedAt when the last rows were added to the day; milliseconds since the Unix epoch
   */
  async isOver(date: string, lastDate: string, committedAt: number): Promise<boolean> {
    const settledMs = Date.parse(date) + DAY_MS + SETTLE_MS
    const nowMs = wallMs(this.#clock)
    if (nowMs < settledMs + (lastDate > date ? 0 : DAY_MS)) return false
    // A record of a later time comes from a wrong clock, and must not delay the day until then.
    const sinceMs = Math.max(settledMs, committedAt > nowMs ? 0 : committedAt)
    // So does a reading of a later time.
    this.#readings = this.#readings.filter(({ atMs }) => atMs <= nowMs)
    let reading = this.#readings.find(({ atMs }) => atMs >= sinceMs)
    if (reading === undefined) {
      reading = { atMs: nowMs, topicsAtMs: nowMs, waiting: await this.#ends() }
      this.#readings.push(reading)
    }
    if (!(await this.#isReached(reading, nowMs))) return false
    // This one is enough for the days that an earlier one is enough for.
    this.#readings = this.#readings.slice(this.#readings.indexOf(reading))
    return true
  }

  async #isReached(reading: Reading, nowMs: number): Promise<boolean> {
    const { waiting } = reading
    if (waiting.size > 0 && nowMs - reading.topicsAtMs >= REREAD_MS) {
      const ends = await this.#ends()
      for (const [path, one] of waiting) {
        const end = ends.get(path)?.end
        if (end === undefined) waiting.delete(path)
        else waiting.set(path, { ...one, end: Math.min(one.end, end) })
      }
      reading.topicsAtMs = nowMs
    }
    for (const [path, one] of waiting) {
      const head = await new CommitChain(this.#store, one).head()
      if (one.end > 0 && (head === null || head.nextOffset < one.end)) return false
      waiting.delete(path)
    }
    return true
  }

  async #ends(): Promise<Reading['waiting']> {
    return new Map((await this.#readEnds()).map((one) => [chainPath(one), one]))
  }
}
