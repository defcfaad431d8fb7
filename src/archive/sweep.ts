import { type ChainPoint, CommitChain, chainsOf } from '../foundation/archive/commit-chain.ts'
import { isBefore, newestDayList } from '../foundation/archive/day-list.ts'
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
  for (const [folder, keys] of marks.days)
    await remove((await store.list(folder)).filter((key) => keys.before.has(key) && !keys.now.has(key)))
  return removed
}

/** What a sweep may remove, as of the moment when it was decided. */
export interface SweepMarks {
  readonly chains: ReadonlyArray<{
    readonly chain: CommitChain
    readonly foldedTo: ChainPoint
    /** Where the next record goes: an unnamed segment below it never gets one. */
    readonly head: ChainPoint
    readonly referenced: ReadonlySet<string>
  }>
  /** By the folder of a day: its files at that moment, and those of its newest list. */
  readonly days: ReadonlyMap<
    string,
    { readonly before: ReadonlySet<string>; readonly now: ReadonlySet<string> }
  >
}

/** Decides what a later {@link sweep} may remove. */
export async function markForSweep(store: ObjectStore): Promise<SweepMarks> {
  const chains: Array<SweepMarks['chains'][number]> = []
  for (const partition of await chainsOf(store)) {
    const chain = new CommitChain(store, partition)
    const foldedTo = await chain.foldedTo()
    const records = await chain.records(foldedTo)
    const { incarnation, nextOffset } = (await chain.head()) ?? { incarnation: 0, nextOffset: 0 }
    const referenced = new Set(records.flatMap(({ files }) => files.map(({ key }) => key)))
    chains.push({ chain, foldedTo, head: { incarnation, offset: nextOffset }, referenced })
  }
  const days = new Map<string, { before: Set<string>; now: Set<string> }>()
  for (const table of DAY_TABLES.keys()) {
    for (const name of await store.folders(table)) {
      const folder = `${table}/${name}`
      const before = new Set(await store.list(folder))
      const list = await newestDayList(store, table, name.replace('date=', ''))
      // Without a list the day is just being published.
      if (list !== null) days.set(folder, { before, now: new Set(list.files.map(({ key }) => key)) })
    }
  }
  return { chains, days }
}
