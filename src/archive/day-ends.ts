import { CommitChain, chainPath, type SegmentFile } from '../foundation/archive/commit-chain.ts'
import { newestDayList } from '../foundation/archive/day-list.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { dayKey } from '../foundation/archive/segment-days.ts'
import { DAY_TABLES } from '../foundation/archive/tables.ts'
import type { PartitionOrigin } from '../foundation/kafka/partition.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'

const DAY_MS = 86_400_000

/**
 * Time after midnight in which events of the day before still arrive in order, and after the last rows
 * of an imported day in which the import may still add some.
 */
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
 * Decides whether a day is over: the ends of all partitions were read ten minutes after it, and every
 * chain has reached them. A day that began when it was over is imported: its ends are read ten minutes
 * after its last rows. What arrives later is added to the published day.
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
  /** When a day may be over that was not; milliseconds since the Unix epoch. */
  #dueAtMs = Number.POSITIVE_INFINITY
  /** Days of the past that got rows since the last look, by key. */
  readonly #added = new Map<string, { readonly table: string; readonly date: string }>()

  constructor(store: ObjectStore, readEnds: ReadEnds, clock: Pick<Clock, 'wallMicros'>) {
    this.#store = store
    this.#readEnds = readEnds
    this.#clock = clock
  }

  /**
   * @param date UTC, like `2026-01-31`
   * @param lastDate the last day of which there are rows
   * @param beganAt when the first rows were added to the day; milliseconds since the Unix epoch
   * @param committedAt when the last ones were
   */
  async isOver(date: string, lastDate: string, beganAt: number, committedAt: number): Promise<boolean> {
    const settledMs = settledAtMs(date)
    const nowMs = wallMs(this.#clock)
    // A record of a later time comes from a wrong clock, and must not delay the day until then.
    const isImported = beganAt > settledMs && committedAt <= nowMs
    const sinceMs = isImported ? committedAt + SETTLE_MS : settledMs
    // At midnight there will be rows of the next day.
    const dueMs = lastDate > date || nowMs < settledMs ? sinceMs : Math.max(sinceMs, settledMs + DAY_MS)
    if (nowMs < dueMs) {
      this.#dueAtMs = Math.min(this.#dueAtMs, dueMs)
      return false
    }
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

  /** The files of a segment are committed. */
  committed(files: readonly SegmentFile[]): void {
    const nowMs = wallMs(this.#clock)
    for (const { table, days } of files)
      for (const date of Object.keys(days))
        if (DAY_TABLES.has(table) && settledAtMs(date) <= nowMs)
          this.#added.set(dayKey({ table, date }), { table, date })
  }

  /**
   * Returns whether a day that is not published may be over now, and was not when it was asked for, or
   * got its first rows meanwhile. True once for each reason.
   */
  async mayBeOver(): Promise<boolean> {
    const nowMs = wallMs(this.#clock)
    for (const [key, { table, date }] of this.#added) {
      if ((await newestDayList(this.#store, table, date)) === null)
        this.#dueAtMs = Math.min(this.#dueAtMs, nowMs + SETTLE_MS)
      this.#added.delete(key)
    }
    if (nowMs >= this.#dueAtMs) {
      this.#dueAtMs = Number.POSITIVE_INFINITY
      return true
    }
    for (const reading of this.#readings)
      if (reading.waiting.size > 0 && (await this.#isReached(reading, nowMs))) return true
    return false
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

function settledAtMs(date: string): number {
  return Date.parse(date) + DAY_MS + SETTLE_MS
}
