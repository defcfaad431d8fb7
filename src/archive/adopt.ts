import { randomUUID } from 'node:crypto'
import { ArchiveSnapshot } from '../foundation/archive/archive-snapshot.ts'
import { type DuckDb, quoted, quotedPath } from '../foundation/archive/duckdb.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { type ArchiveTable, COLUMN_KINDS } from '../foundation/archive/tables.ts'
import { ADOPTED_FOLDER } from '../foundation/archive/text-relations.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { publishDay } from './compaction.ts'
import { duckDbMerge } from './day-merge.ts'
import { ledgerOf, refreshManifest } from './manifests.ts'

export interface AdoptPorts {
  readonly store: ObjectStore
  readonly duckDb: DuckDb
  readonly clock: Pick<Clock, 'wallMicros'>
}

export interface Adopted {
  readonly table: string
  readonly date: string
  /** In the given file. */
  readonly rows: number
  /** Those that the published day did not have. */
  readonly added: number
  /** Number of the list that has them; null if nothing was added to a day that is not published. */
  readonly list: number | null
}

const DAY_MS = 86_400_000

/** Another process may publish the day meanwhile. */
const MAX_ATTEMPTS = 5

/**
 * Adds rows from elsewhere to the published files of a day: those that neither these nor segments have,
 * by their identity. The rest of the day stays as it is. Repeating it adds nothing.
 *
 * @param csv file without a header line, with the columns of the table; an empty field is null
 * @throws TapelineError `ARCHIVE` if the day has segments and is not published
 */
export async function adoptDay(
  ports: AdoptPorts,
  table: ArchiveTable,
  date: string,
  csv: string,
): Promise<Adopted> {
  const { store, duckDb } = ports
  const given = csvRows(
    csv,
    Object.fromEntries(table.columns.map(({ name, kind }) => [name, COLUMN_KINDS[kind].sql])),
  )
  const [count] = await duckDb.rows<{ rows: bigint }>(`SELECT count(*) AS rows FROM ${given}`)
  const rows = Number(count?.rows ?? 0)
  const fromMs = Date.parse(date)
  for (let attempt = 1; ; attempt++) {
    await using snapshot = await ArchiveSnapshot.take(store)
    const { list: last, pending } = await snapshot.day(table.name, date)
    // A list ends the wait until the day is over.
    if (last === null && pending.length > 0)
      throw new TapelineError('ARCHIVE', `${table.name} ${date} is archived, and not published yet`, {
        fix: 'Let the archive service publish the day, then adopt it: what is there then stays as it is.',
      })
    const known = await snapshot.relation(table.name, { symbols: null, fromMs, toMs: fromMs + DAY_MS })
    const fresh = `SELECT * FROM ${given} ANTI JOIN (${known}) USING (${table.identity.join()})`
    const [added] = await duckDb.rows<{ rows: bigint }>(`SELECT count(*) AS rows FROM (${fresh})`)
    const done = { table: table.name, date, rows, added: Number(added?.rows ?? 0) }
    const ledger = await ledgerOf(ports, snapshot.chains)
    if (done.added === 0) {
      // The ledger may have got rows that the list does not know.
      await refreshManifest(ports, ledger, table.name, date)
      return { ...done, list: last?.number ?? null }
    }
    const columns = table.columns.map(({ name }) => name).join()
    const folded = Object.fromEntries(snapshot.chains.map(({ path, foldedTo }) => [path, foldedTo]))
    const rowsOf = () => `SELECT ${columns}, 1 AS _rank, 0 AS _offset FROM (${fresh})`
    const list = await publishDay(
      { ...ports, merge: duckDbMerge(store, duckDb, rowsOf) },
      table,
      date,
      last,
      ledger,
      // Later records are still to be merged; folded ones never are.
      { files: [], through: { ...folded, ...last?.through } },
    )
    if (list !== null) {
      // As in compaction, the ledger may have new revisions.
      await using now = await ArchiveSnapshot.take(store)
      await refreshManifest(ports, await ledgerOf(ports, now.chains), table.name, date)
      return { ...done, list: list.number }
    }
    if (attempt === MAX_ATTEMPTS)
      throw new Error(`${table.name} ${date} was published ${attempt} times meanwhile`)
  }
}

/**
 * Adds rows of the ledger that the archive does not have, or has in an earlier revision.
 *
 * @param csv file without a header line: `updated_at` in milliseconds, and the row as JSON text
 * @returns how many were added
 */
export async function adoptLedger(
  { store, duckDb }: Omit<AdoptPorts, 'clock'>,
  csv: string,
): Promise<number> {
  await using snapshot = await ArchiveSnapshot.take(store)
  const given = csvRows(csv, { ms: 'BIGINT', json: 'VARCHAR' })
  const fresh = `SELECT epoch_ms(ms) AT TIME ZONE 'UTC' AS time, json, 0::BIGINT AS _offset FROM ${given} AS given
    WHERE NOT EXISTS (SELECT 1 FROM (${await snapshot.textRelation('gaps')}) AS known
      WHERE known.gap_id = (given.json->>'$.gap_id') AND known.revision >= (given.json->>'$.revision')::INTEGER)`
  const [count] = await duckDb.rows<{ rows: bigint }>(`SELECT count(*) AS rows FROM (${fresh})`)
  if (!count || count.rows === 0n) return 0
  await store.putFile(`${ADOPTED_FOLDER}/gaps/${randomUUID()}.parquet`, (path) =>
    duckDb.run(`COPY (${fresh}) TO ${quoted(path)} (FORMAT parquet, COMPRESSION zstd)`),
  )
  return Number(count.rows)
}

function csvRows(path: string, types: Readonly<Record<string, string>>): string {
  const columns = Object.entries(types).map(([name, type]) => `${quoted(name)}: ${quoted(type)}`)
  return `read_csv(${quotedPath(path)}, header = false, delim = ',', quote = '"', escape = '"', auto_detect = false, nullstr = '', columns = {${columns.join()}})`
}
