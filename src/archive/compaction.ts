import {
  type ChainHead,
  type ChainPoint,
  type ChainRecord,
  CommitChain,
  chainPath,
  chainsOf,
  isBefore,
  ORIGIN,
} from '../foundation/archive/commit-chain.ts'
import {
  conflictFolder,
  createDayList,
  type DayList,
  dayFileKey,
  dayFolder,
  listNumberOf,
  newestDayList,
} from '../foundation/archive/day-list.ts'
import { dayManifest, type Ledger } from '../foundation/archive/day-manifest.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { dayKey, type SegmentDay, segmentDays } from '../foundation/archive/segment-days.ts'
import { type ArchiveTable, DAY_TABLES, TEXT_TABLES } from '../foundation/archive/tables.ts'
import type { PartitionOrigin } from '../foundation/kafka/partition.ts'
import { wallMs } from '../foundation/runtime/clock.ts'
import type { CompactionPorts, DayToMerge, MergedDay } from './day-merge.ts'
import { refreshManifests } from './manifests.ts'

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
 * @param beganAt when the first rows of the day were committed; milliseconds since the Unix epoch
 * @param committedAt when the last ones were
 */
export type IsOver = (
  date: string,
  lastDate: string,
  beganAt: number,
  committedAt: number,
) => boolean | Promise<boolean>

/**
 * Merges the segments of each day that is over into its published files. A day that was published
 * before is merged with its late rows. A day that fails delays no other.
 *
 * @param onPublished gets each list once it is created
 * @returns the lists that were created
 * @throws the errors of single days, after all others
 */
export async function compact(
  ports: CompactionPorts,
  isOver: IsOver,
  onPublished: (one: Published) => void = () => {},
): Promise<Published[]> {
  const { store } = ports
  const errors: unknown[] = []
  const attempt = (work: () => Promise<void>) => work().catch((error: unknown) => void errors.push(error))
  const before = await readChains(store)
  const lastDate = lastDateOf(before)
  const over = new Set<string>()
  for (const [day, { table, date, files }] of daysOf(before))
    await attempt(async () => {
      const isNew = (await newestDayList(store, table.name, date)) === null
      const [beganAt, committedAt] = [files[0]?.committedAt ?? 0, files.at(-1)?.committedAt ?? 0]
      if (isNew && (await isOver(date, lastDate, beganAt, committedAt))) over.add(day)
    })
  // The answer may depend on a record that was added after the chains were read.
  const chains = over.size === 0 ? before : await readChains(store)
  const ledger = await ports.readLedger(chains)
  const published: Published[] = []
  const lists = new Map<string, DayList | null>()
  for (const [day, { table, date, files }] of daysOf(chains))
    await attempt(async () => {
      const last = await newestDayList(store, table.name, date)
      lists.set(day, last)
      if (last === null && !over.has(day)) return
      const added = files.filter(({ chain, end }) => isBefore(last?.through[chain] ?? ORIGIN, end))
      if (added.length === 0) return
      const through = throughOf(last, added)
      const list = await publishDay(ports, table, date, last, ledger, { files: added, through })
      if (list !== null) {
        published.push(list)
        onPublished(list)
      }
      const newest = await newestDayList(store, table.name, date)
      lists.set(day, newest)
      if (newest !== null) await removeUnlisted(store, newest)
    })
  const failed = errors.length
  await attempt(async () => {
    // While the days were merged, another process may have read and folded new revisions of the ledger.
    const { gaps } = published.length === 0 ? ledger : await ports.readLedger(await readChains(store))
    errors.push(...(await refreshManifests(ports, { gaps, changed: [...ledger.changed, ...published] })))
  })
  const isLedgerPublished = errors.length === failed
  for (const one of chains) await attempt(() => fold(store, one, lists, isLedgerPublished))
  if (errors.length > 0) throw new AggregateError(errors, 'Not all days were published')
  return published
}

/** A chain, and its records that are not folded. */
interface ReadChain {
  readonly chain: CommitChain
  readonly path: string
  readonly foldedTo: ChainPoint
  readonly records: readonly ChainRecord[]
}

async function readChains(store: ObjectStore): Promise<ReadChain[]> {
  return Promise.all((await chainsOf(store)).map((one) => readChain(store, one)))
}

async function readChain(store: ObjectStore, partition: PartitionOrigin): Promise<ReadChain> {
  const chain = new CommitChain(store, partition)
  const foldedTo = await chain.foldedTo()
  return { chain, path: chainPath(partition), foldedTo, records: await chain.records(foldedTo) }
}

/** The files of records by day, of the tables that are published. */
function daysOf(chains: readonly ReadChain[]) {
  const days = Map.groupBy(segmentDays(chains), dayKey)
  return [...days].flatMap(([day, files]) => {
    const [{ table: name, date } = { table: '', date: '' }] = files
    const table = DAY_TABLES.get(name)
    return table === undefined ? [] : [[day, { table, date, files }] as const]
  })
}

/** The last day of which there are rows that are not published. */
function lastDateOf(chains: readonly ReadChain[]): string {
  const dates = segmentDays(chains).map(({ date }) => date)
  return dates.sort().at(-1) ?? ''
}

/**
 * Folds the records whose rows are all in published days. Those after the first other one wait. Records
 * that are not folded have the new revisions of the ledger. First
 * removes files that no record names: the chain has passed them, so none ever will.
 */
async function fold(
  store: ObjectStore,
  { chain, path, foldedTo, records }: ReadChain,
  lists: ReadonlyMap<string, DayList | null>,
  isLedgerPublished: boolean,
): Promise<void> {
  let end: ChainHead | null = null
  for (const { incarnation, nextOffset, leaderEpoch, files } of records) {
    const point = { incarnation, offset: nextOffset }
    // Tables of texts are not published: their segments stay.
    const isPublished = files.every(
      ({ table, days }) =>
        (table === TEXT_TABLES.gaps.name ? isLedgerPublished : !DAY_TABLES.has(table)) ||
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
    ...dayManifest({ ...last?.symbols, ...symbols }, ledger.gaps.get(table.name) ?? [], date),
  })
  if (!isOurs) {
    await removeAll()
    return null
  }
  const conflict = conflicts[0] === undefined ? null : { rows: conflicts[0].rows, key: conflicts[0].key }
  return { table: table.name, date, number, rows, duplicates, conflicts: conflict }
}

/**
 * Removes files that were written for the number of a list and are not in it: their process was killed,
 * or stands still, and cannot list them any more. A glob would see their rows twice.
 */
async function removeUnlisted(
  store: ObjectStore,
  { table, date, number, files, conflicts }: DayList,
): Promise<void> {
  const listed = new Set([...files, ...conflicts].map(({ key }) => key))
  for (const folder of [dayFolder(table, date), conflictFolder(table, date)])
    for (const key of await store.list(folder))
      if (listNumberOf(key) === number && !listed.has(key)) await store.remove(key)
}

function throughOf(last: DayList | null, added: readonly SegmentDay[]): Record<string, ChainPoint> {
  const through: Record<string, ChainPoint> = { ...last?.through }
  for (const { chain, end } of added) if (isBefore(through[chain] ?? ORIGIN, end)) through[chain] = end
  return through
}
