import { createDayList, type DayList, newestDayList, publishedDates } from '../foundation/archive/day-list.ts'
import {
  type DayFigures,
  dayManifest,
  type Ledger,
  readChangedDays,
  readGaps,
} from '../foundation/archive/day-manifest.ts'
import { type DuckDb, quotedPath } from '../foundation/archive/duckdb.ts'
import { LocalCopies } from '../foundation/archive/local-copies.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { type ArchiveTable, TEXT_TABLES } from '../foundation/archive/tables.ts'
import { type ChainRecords, textFiles, textRelation } from '../foundation/archive/text-relations.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'

interface ManifestPorts {
  readonly store: ObjectStore
  readonly duckDb: DuckDb
  readonly clock: Pick<Clock, 'wallMicros'>
}

/** Reads the ledger of an archive. Records that are not folded have its new revisions. */
export async function ledgerOf(
  { store, duckDb }: Pick<ManifestPorts, 'store' | 'duckDb'>,
  chains: readonly ChainRecords[],
): Promise<Ledger> {
  const files = await textFiles(store, chains, 'gaps')
  await using copies = new LocalCopies(store)
  await copies.add(files)
  const added = chains.flatMap(({ records }) =>
    records.flatMap((one) => one.files.filter(({ table }) => table === TEXT_TABLES.gaps.name)),
  )
  const all = files.length === 0 ? null : copies.read(files)
  return {
    gaps: await readGaps(duckDb, textRelation('gaps', all)),
    changed: all === null || added.length === 0 ? [] : await readChangedDays(duckDb, all, copies.read(added)),
  }
}

/**
 * Publishes days again, with the same files, if the ledger says something else about them now.
 *
 * @returns the errors of days for which that failed
 */
export async function refreshManifests(
  ports: Pick<ManifestPorts, 'store' | 'clock'>,
  ledger: Ledger,
): Promise<unknown[]> {
  const errors: unknown[] = []
  for (const { table, date } of ledger.changed) {
    try {
      const dates = date === null ? await publishedDates(ports.store, table) : [date]
      for (const one of dates) await refreshManifest(ports, ledger, table, one)
    } catch (error) {
      errors.push(error)
    }
  }
  return errors
}

/** Does the same for one day, if it is published. */
export async function refreshManifest(
  { store, clock }: Pick<ManifestPorts, 'store' | 'clock'>,
  ledger: Ledger,
  table: string,
  date: string,
): Promise<void> {
  for (;;) {
    const last = await newestDayList(store, table, date)
    if (last === null) return
    const manifest = dayManifest(last.symbols, ledger.gaps.get(table) ?? [], date)
    const isSame =
      JSON.stringify([last.missing, last.verdict]) === JSON.stringify([manifest.missing, manifest.verdict])
    if (isSame) return
    // If another process has published the next list, it is read and compared in turn.
    const next = { ...last, ...manifest, number: last.number + 1, publishedAt: wallMs(clock) }
    if (await createDayList(store, next)) return
  }
}

/** Ids between the first and the last that no row covers, by what the ids tell; of the rows of {@link idsIn}. */
const MISSING_IDS = {
  contiguous: '(max(id) - min(id) + 1 - count(*))::DOUBLE',
  ranges: 'sum(greatest(0, first_id - before - 1))::DOUBLE',
  increasing: 'NULL',
  none: 'NULL',
} as const satisfies Record<ArchiveTable['ids'], string>

/** Counts the rows and ids of each symbol in a file of a day, which has all rows of its symbols. */
export async function symbolFigures(
  duckDb: DuckDb,
  table: ArchiveTable,
  path: string,
): Promise<DayList['symbols']> {
  const figures = await duckDb.rows<DayFigures & { symbol: string }>(
    `SELECT symbol, epoch, sum(rows)::DOUBLE AS "rows", min(first_id)::DOUBLE AS "firstId", max(id)::DOUBLE AS "lastId",
       ${MISSING_IDS[table.ids]} AS "missingIds"
     FROM (${idsIn(table, `read_parquet(${quotedPath(path)})`)}) GROUP BY symbol, epoch ORDER BY symbol, epoch`,
  )
  const bySymbol = Map.groupBy(figures, ({ symbol }) => symbol)
  return Object.fromEntries(
    [...bySymbol].map(([symbol, epochs]) => [symbol, epochs.map(({ symbol: _, ...of }) => of)]),
  )
}

/** The ids in a file: an id or range once, since an id may have two rows, of different times or levels. */
function idsIn({ ids, id, firstId }: ArchiveTable, file: string): string {
  if (ids === 'increasing')
    return `SELECT symbol, 0 AS epoch, ${id} AS first_id, ${id} AS id, 1 AS rows FROM ${file}`
  const once = `SELECT symbol, epoch, ${firstId ?? id} AS first_id, ${id} AS id, count(*) AS rows FROM ${file} GROUP BY ALL`
  if (ids !== 'ranges') return once
  // Ranges of two connections may overlap.
  return `SELECT *, coalesce(max(id) OVER (PARTITION BY symbol, epoch ORDER BY first_id, id
    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), first_id - 1) AS before FROM (${once})`
}
