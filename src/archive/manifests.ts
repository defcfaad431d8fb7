import { createDayList, type DayList, newestDayList } from '../foundation/archive/day-list.ts'
import {
  changedDays,
  dayManifest,
  type Ledger,
  readLedger,
  type SymbolFigures,
} from '../foundation/archive/day-manifest.ts'
import { type DuckDb, quotedPath } from '../foundation/archive/duckdb.ts'
import { LocalCopies } from '../foundation/archive/local-copies.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import type { ArchiveTable } from '../foundation/archive/tables.ts'
import { type ChainRecords, textFiles, textRelation } from '../foundation/archive/text-relations.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'

/** A revision of the ledger changes the lists of its days within this time. */
const REFRESH_MS = 2 * 86_400_000

interface ManifestPorts {
  readonly store: ObjectStore
  readonly duckDb: DuckDb
  readonly clock: Pick<Clock, 'wallMicros'>
}

/** Reads the ledger of an archive. */
export async function ledgerOf(
  { store, duckDb }: Pick<ManifestPorts, 'store' | 'duckDb'>,
  chains: readonly ChainRecords[],
): Promise<Ledger> {
  const files = await textFiles(store, chains, 'gaps')
  await using copies = new LocalCopies(store)
  await copies.add(files)
  return await readLedger(duckDb, textRelation('gaps', files.length === 0 ? null : copies.read(files)))
}

/** Publishes a day again, with the same files, if the ledger says something else about it now. */
export async function refreshManifests(
  { store, clock }: Pick<ManifestPorts, 'store' | 'clock'>,
  ledger: Ledger,
): Promise<void> {
  const nowMs = wallMs(clock)
  for (const { table, date } of changedDays(ledger, nowMs - REFRESH_MS)) {
    const last = await newestDayList(store, table, date)
    if (last === null) continue
    const manifest = dayManifest(last.symbols, ledger.get(table) ?? [], date)
    const isSame =
      JSON.stringify([last.missing, last.verdict]) === JSON.stringify([manifest.missing, manifest.verdict])
    if (!isSame)
      await createDayList(store, { ...last, ...manifest, number: last.number + 1, publishedAt: nowMs })
  }
}

/** Counts the rows and ids of each symbol in a file of a day, which has all rows of its symbols. */
export async function symbolFigures(
  duckDb: DuckDb,
  { identity, columns }: ArchiveTable,
  path: string,
): Promise<DayList['symbols']> {
  const id = identity.at(-1)
  const hasEpochs = columns.some(({ name }) => name === 'epoch')
  const figures = await duckDb.rows<SymbolFigures & { symbol: string }>(
    `SELECT symbol, sum(rows)::DOUBLE AS "rows", arg_min(first, epoch)::DOUBLE AS "firstId", arg_max(last, epoch)::DOUBLE AS "lastId",
       ${hasEpochs ? 'sum(greatest(last - first + 1 - rows, 0))::DOUBLE' : 'NULL'} AS "missingIds"
     FROM (SELECT symbol, ${hasEpochs ? 'epoch' : '0 AS epoch'}, count(*) AS rows, min(${id}) AS first, max(${id}) AS last
           FROM read_parquet(${quotedPath(path)}) GROUP BY symbol, epoch)
     GROUP BY symbol ORDER BY symbol`,
  )
  return Object.fromEntries(figures.map(({ symbol, ...of }) => [symbol, of]))
}
