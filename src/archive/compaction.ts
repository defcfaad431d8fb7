import {
  type ChainHead,
  type ChainPoint,
  type ChainRecord,
  CommitChain,
  chainPath,
  chainsOf,
  isBefore,
  ORIGIN,
  type SegmentFile,
} from '../foundation/archive/commit-chain.ts'
import {
  conflictFolder,
  createDayList,
  type DayList,
  dayFileKey,
  dayFolder,
  newestDayList,
} from '../foundation/archive/day-list.ts'
import { dayManifest, type Ledger } from '../foundation/archive/day-manifest.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { type ArchiveTable, DAY_TABLES } from '../foundation/archive/tables.ts'
import type { PartitionOrigin } from '../foundation/kafka/partition.ts'
import { wallMs } from '../foundation/runtime/clock.ts'
import type { CompactionPorts, DayToMerge, MergedDay } from './day-merge.ts'
import { refreshManifests } from './manifests.ts'

/** A file of a segment with rows of a day, and where its record is. */
interface NewFile extends SegmentFile {
  readonly date: string
  readonly chain: string
  readonly incarnation: number
  readonly end: ChainPoint
}

export interface Published {
  readonly table: string
  readonly date: string
  readonly number: number
  readonly rows: number
  readonly duplicates: number
  /** Rows that contradict one that stays, and the file that has them; null without any. */
  readonly conflicts: { readonly rows: number; readonly key: string } | null
}

/**
 * Whether everything of a day that Kafka had is in the segments.
 *
 * @param lastDate the last day of which there are rows that are not published
 */
export type IsOver = (date: string, lastDate: string) => boolean | Promise<boolean>

/**
 * Merges the segments of each day that is over into its published files. A day that was published
 * before is merged with its late rows. A day that fails delays no other.
 *
 * @returns the lists that were created
 * @throws AggregateError with the errors of single days, after all others
 */
export async function compact(ports: CompactionPorts, isOver: IsOver): Promise<Published[]> {
  const chains = await Promise.all((await chainsOf(ports.store)).map((one) => readChain(ports.store, one)))
  const ledger = await ports.readLedger(chains)
  const files = chains.flatMap(newFiles)
  const lastDate =
    files
      .map(({ date }) => date)
      .sort()
      .at(-1) ?? ''
  const published: Published[] = []
  const errors: unknown[] = []
  const lists = new Map<string, DayList | null>()
  for (const [day, ofDay] of Map.groupBy(files, dayKey)) {
    const { table: name, date } = ofDay[0] ?? { table: '', date: '' }
    const table = DAY_TABLES.get(name)
    if (table === undefined) continue
    try {
      const last = await newestDayList(ports.store, name, date)
      lists.set(day, last)
      if (last === null && !(await isOver(date, lastDate))) continue
      const added = ofDay.filter(({ chain, end }) => isBefore(last?.through[chain] ?? ORIGIN, end))
      if (added.length === 0) continue
      const list = await publishDay(ports, table, date, last, ledger, {
        files: added,
        through: throughOf(last, added),
      })
      if (list !== null) published.push(list)
      lists.set(day, await newestDayList(ports.store, name, date))
    } catch (error) {
      errors.push(error)
    }
  }
  for (const one of chains) await fold(ports.store, one, lists)
  await refreshManifests(ports, ledger)
  if (errors.length > 0) throw new AggregateError(errors, `${errors.length} days were not published`)
  return published
}

/** A chain, and its records that are not folded. */
interface ReadChain {
  readonly chain: CommitChain
  readonly path: string
  readonly foldedTo: ChainPoint
  readonly records: readonly ChainRecord[]
}

async function readChain(store: ObjectStore, partition: PartitionOrigin): Promise<ReadChain> {
  const chain = new CommitChain(store, partition)
  const foldedTo = await chain.foldedTo()
  return { chain, path: chainPath(partition), foldedTo, records: await chain.records(foldedTo) }
}

function newFiles({ path, records }: ReadChain): NewFile[] {
  return records.flatMap(({ incarnation, nextOffset, files }) =>
    files.flatMap((file) =>
      Object.keys(file.days).map((date) => ({
        ...{ ...file, date, chain: path, incarnation },
        end: { incarnation, offset: nextOffset },
      })),
    ),
  )
}

function dayKey({ table, date }: Pick<NewFile, 'table' | 'date'>): string {
  return `${table}/${date}`
}

/**
 * Folds the records whose rows are all in published days. Those after the first other one wait. First
 * removes files that no record names: the chain has passed them, so none ever will.
 */
async function fold(
  store: ObjectStore,
  { chain, path, foldedTo, records }: ReadChain,
  lists: ReadonlyMap<string, DayList | null>,
): Promise<void> {
  let end: ChainHead | null = null
  for (const { incarnation, nextOffset, leaderEpoch, files } of records) {
    const point = { incarnation, offset: nextOffset }
    // Tables of texts are not published: their segments stay.
    const isPublished = files.every(
      ({ table, days }) =>
        !DAY_TABLES.has(table) ||
        Object.keys(days).every((date) => {
          const through = lists.get(dayKey({ table, date }))?.through[path]
          return through !== undefined && !isBefore(through, point)
        }),
    )
    if (!isPublished) break
    end = { incarnation, nextOffset, leaderEpoch }
  }
  if (end === null) return
  const named = new Set(records.flatMap(({ files }) => files.map(({ key }) => key)))
  const to = { incarnation: end.incarnation, offset: end.nextOffset }
  for (const { key, ...point } of await chain.segmentFiles())
    if (!isBefore(point, foldedTo) && isBefore(point, to) && !named.has(key)) await store.remove(key)
  await chain.foldTo(end)
}

/** Rows for a day, and up to where they have the records of each chain. */
interface Addition {
  readonly files: DayToMerge['added']
  readonly through: DayList['through']
}

/**
 * Publishes a day with more rows.
 *
 * @returns null if another process has published its next list meanwhile
 */
export async function publishDay(
  { store, merge, clock }: Omit<CompactionPorts, 'readLedger'>,
  table: ArchiveTable,
  date: string,
  last: DayList | null,
  ledger: Ledger,
  added: Addition,
): Promise<Published | null> {
  const number = (last?.number ?? 0) + 1
  const keys: string[] = []
  const putIn =
    (folder: string): DayToMerge['put'] =>
    async (write) => {
      const key = dayFileKey(folder, number)
      keys.push(key)
      return { key, ...(await store.putFile(key, write)) }
    }
  const removeAll = async () => {
    for (const key of keys) await store.remove(key)
  }
  let merged: MergedDay
  try {
    merged = await merge({
      ...{ table, date, added: added.files, published: last?.files ?? [], symbols: last?.symbols ?? {} },
      put: putIn(dayFolder(table.name, date)),
      putConflicts: putIn(conflictFolder(table.name, date)),
    })
  } catch (error) {
    await removeAll().catch((also: unknown) => {
      throw new AggregateError([error, also])
    })
    throw error
  }
  const { files, rows, duplicates, conflicts, symbols } = merged
  const isOurs = await createDayList(store, {
    table: table.name,
    date,
    number,
    publishedAt: wallMs(clock),
    files: [...files],
    through: added.through,
    duplicates: (last?.duplicates ?? 0) + duplicates,
    conflicts: [...(last?.conflicts ?? []), ...conflicts],
    ...dayManifest({ ...last?.symbols, ...symbols }, ledger.get(table.name) ?? [], date),
  })
  if (!isOurs) {
    await removeAll()
    return null
  }
  const conflict = conflicts[0] === undefined ? null : { rows: conflicts[0].rows, key: conflicts[0].key }
  return { table: table.name, date, number, rows, duplicates, conflicts: conflict }
}

function throughOf(last: DayList | null, added: readonly NewFile[]): Record<string, ChainPoint> {
  const through: Record<string, ChainPoint> = { ...last?.through }
  for (const { chain, end } of added) if (isBefore(through[chain] ?? ORIGIN, end)) through[chain] = end
  return through
}
