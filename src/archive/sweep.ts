import { type ChainPoint, CommitChain, chainsOf, isBefore } from '../foundation/archive/commit-chain.ts'
import {
  CONFLICTS,
  createDayList,
  type DayList,
  listNumberOf,
  newestDayList,
  newestDayListKeys,
} from '../foundation/archive/day-list.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { DAY_TABLES } from '../foundation/archive/tables.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'

/**
 * Removes files that nothing names: segments that are in published days, segments whose owner lost
 * the race for their offset or was killed before it, and files that a later list has replaced.
 *
 * Call it at least the grace period after the folds and lists that it acts on were made: readers may
 * still have them open.
 *
 * @returns how many files were removed
 */
export async function sweep(
  store: ObjectStore,
  marks: SweepMarks,
  clock: Pick<Clock, 'wallMicros'>,
): Promise<number> {
  let removed = 0
  const remove = async (keys: readonly string[]) => {
    for (const key of keys) await store.remove(key)
    removed += keys.length
  }
  for (const { chain, foldedTo, head, referenced } of marks.chains) {
    for (const { key, table, ...point } of await chain.segmentFiles()) {
      const isPublished = DAY_TABLES.has(table) && isBefore(point, foldedTo)
      const isOrphan = isBefore(point, head) && !isBefore(point, foldedTo) && !referenced.has(key)
      if (isPublished || isOrphan) await remove([key])
    }
  }
  for (const { table, date, unlisted } of marks.days) {
    const list = await closeNumber(store, await newestDayList(store, table, date), unlisted, clock)
    // A file is in the list that it was written for, or in none.
    const listed = namedBy(list)
    await remove(unlisted.filter((key) => !listed.has(key) && listNumberOf(key) <= (list?.number ?? 0)))
  }
  await store.removeStale(wallMs(clock))
  return removed
}

/**
 * Publishes the newest list again under the next number if there are files for that number: the
 * process that wrote them was killed, or has stood still for long. It cannot list them any more.
 */
async function closeNumber(
  store: ObjectStore,
  list: DayList | null,
  unlisted: readonly string[],
  clock: Pick<Clock, 'wallMicros'>,
): Promise<DayList | null> {
  if (list === null || !unlisted.some((key) => listNumberOf(key) === list.number + 1)) return list
  const next = { ...list, number: list.number + 1, publishedAt: wallMs(clock) }
  return (await createDayList(store, next)) ? next : newestDayList(store, list.table, list.date)
}

/** What a sweep may remove, as of the moment when it was decided. */
export interface SweepMarks {
  readonly chains: ReadonlyArray<{
    readonly chain: CommitChain
    readonly foldedTo: ChainPoint
    /** The end of the records that were read: an unnamed segment below it never gets one. */
    readonly head: ChainPoint
    readonly referenced: ReadonlySet<string>
  }>
  /** Files of published days that the newest list did not have. */
  readonly days: ReadonlyArray<{
    readonly table: string
    readonly date: string
    readonly unlisted: readonly string[]
  }>
}

/**
 * Decides what a later {@link sweep} may remove.
 *
 * @param clean days without such files, and what they had then: a year of them is not read again
 */
export async function markForSweep(
  store: ObjectStore,
  clean = new Map<string, string>(),
): Promise<SweepMarks> {
  const chains: Array<SweepMarks['chains'][number]> = []
  for (const partition of await chainsOf(store)) {
    const chain = new CommitChain(store, partition)
    const foldedTo = await chain.foldedTo()
    const records = await chain.records(foldedTo)
    // Not the chain's head now: a record may have been added since, whose file is not referenced here.
    const last = records.at(-1)
    const head = last === undefined ? foldedTo : { incarnation: last.incarnation, offset: last.nextOffset }
    const referenced = new Set(records.flatMap(({ files }) => files.map(({ key }) => key)))
    chains.push({ chain, foldedTo, head, referenced })
  }
  const days: Array<SweepMarks['days'][number]> = []
  for (const table of DAY_TABLES.keys()) {
    // The files first: those that a list adds meanwhile are not among them.
    const files = Map.groupBy(
      [...(await store.list(table)), ...(await store.list(`${CONFLICTS}/${table}`))],
      (key) => /\/(?:date=)?(\d{4}-\d{2}-\d{2})\//.exec(key)?.[1] ?? '',
    )
    const lists = await newestDayListKeys(store, table)
    for (const [date, keys] of files) {
      const found = [lists.get(date), ...keys].join()
      // A file that is not ours has no date.
      if (date === '' || clean.get(`${table}/${date}`) === found) continue
      const listed = namedBy(await newestDayList(store, table, date))
      const unlisted = keys.filter((key) => !listed.has(key))
      if (unlisted.length > 0) days.push({ table, date, unlisted })
      else clean.set(`${table}/${date}`, found)
    }
  }
  return { chains, days }
}

function namedBy(list: DayList | null): ReadonlySet<string> {
  return new Set([...(list?.files ?? []), ...(list?.conflicts ?? [])].map(({ key }) => key))
}
