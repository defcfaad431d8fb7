import { type ChainPoint, CommitChain, chainsOf } from '../foundation/archive/commit-chain.ts'
import { isBefore, newestDayList, newestDayListKeys } from '../foundation/archive/day-list.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { DAY_TABLES } from '../foundation/archive/tables.ts'

/**
 * Removes files that nothing names: segments that are in published days, segments whose owner lost
 * the race for their offset or was killed before it, and files that a later list has replaced.
 *
 * Call it at least the grace period after the folds and lists that it acts on were made: readers may
 * still have them open.
 *
 * @returns how many files were removed
 */
export async function sweep(store: ObjectStore, marks: SweepMarks): Promise<number> {
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
    // Another process may have been publishing then: its files are in a list now.
    const listed = await listedFiles(store, table, date)
    await remove(unlisted.filter((key) => !listed.has(key)))
  }
  return removed
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
    const files = Map.groupBy(await store.list(table), (key) => key.split('/')[1] ?? '')
    const lists = await newestDayListKeys(store, table)
    for (const [name, keys] of files) {
      const date = name.replace('date=', '')
      const folder = `${table}/${name}`
      const found = [lists.get(date), ...keys].join()
      if (clean.get(folder) === found) continue
      const listed = await listedFiles(store, table, date)
      const unlisted = keys.filter((key) => !listed.has(key))
      if (unlisted.length > 0) days.push({ table, date, unlisted })
      else clean.set(folder, found)
    }
  }
  return { chains, days }
}

async function listedFiles(store: ObjectStore, table: string, date: string): Promise<ReadonlySet<string>> {
  const list = await newestDayList(store, table, date)
  return new Set(list?.files.map(({ key }) => key))
}
