import { withArchive } from '../src/foundation/archive/archive-reader.ts'
import { ArchivedBooks } from '../src/foundation/archive/archived-books.ts'
import type { IdRange } from '../src/foundation/market/id-ranges.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { StoredBooks } from '../src/foundation/store/stored-books.ts'
import { type BookCheck, checkBooks, drawInstants } from './books.ts'
import { checkDepth, type DepthCheck } from './depth-ledger.ts'
import type { Incident } from './faults.ts'
import type { ChaosOptions } from './options.ts'
import type { Window } from './outages.ts'
import type { Saboteur } from './saboteur.ts'
import type { Stage } from './stage.ts'

/** Order books compared with those of the exchange. */
export interface RecordedBooks {
  readonly depth: DepthCheck
  readonly tables: BookCheck
  /** Null without an archive. */
  readonly archive: BookCheck | null
  readonly violations: readonly string[]
}

const ENGINE_BYTES = 512 * 2 ** 20
/** A book of the archive takes half a second or more, so at most this many are compared. */
const MOST_ARCHIVED = 300

/** Compares diffs and snapshots with the ledger and the faults, and books at random instants with the true ones. */
export async function checkRecordedBooks(
  database: Database,
  { exchange, ingestion, archiveFolder }: Stage,
  { incidents, wrongClocks }: Saboteur,
  { instants: count, seed }: ChaosOptions,
  say: (text: string) => void,
): Promise<RecordedBooks> {
  const { books: truth } = exchange
  if (truth === null) throw new Error('The exchange has no order books')
  say('comparing the changes of order books with the ledger')
  const depth = await checkDepth(database, {
    exchange,
    starts: ingestion.starts,
    faults: incidents.filter(({ name }) => !HARMLESS.test(name)).map(windowOf),
    isClockRight: wrongClocks.length === 0,
  })
  const instants = await drawInstants(database, count, seed)
  const lost = await lostUpdates(database)
  const lostOf = (symbol: string) => lost.get(symbol) ?? []
  say(`comparing order books at ${count} instants with those of the exchange`)
  const tables = await checkBooks(instants, {
    ...{ name: 'tables', truth, lostOf, storeOf: (symbol) => new StoredBooks(database, symbol) },
  })
  const every = Math.ceil(instants.length / MOST_ARCHIVED)
  if (archiveFolder !== null) say('comparing order books of the archive')
  const archive =
    archiveFolder === null
      ? null
      : await withArchive({ url: archiveFolder, memoryBytes: ENGINE_BYTES, tempFolder: null }, (reader) =>
          reader.read((snapshot) =>
            checkBooks(
              instants.filter((_, index) => index % every === 0),
              {
                ...{ name: 'archive', truth, lostOf },
                storeOf: (symbol) => new ArchivedBooks(reader.duckDb, snapshot, symbol),
              },
            ),
          ),
        )
  const violations = [depth, tables, archive].flatMap((check) => check?.violations ?? [])
  return { depth, tables, archive, violations }
}

/** Faults that lose no diff of an order book. */
const HARMLESS =
  /^(serverShutdown|duplicate|delay|depth duplicate|depth delay|drop|stall of one stream|rest\w+|consumer .*|database .*|archive .*)$/

function windowOf({ from, to }: Incident): Window {
  return { fromMs: Date.parse(from), toMs: Date.parse(to) }
}

async function lostUpdates(database: Database): Promise<Map<string, IdRange[]>> {
  const { rows } = await database.query<IdRange & { symbol: string }>(
    `SELECT symbol, from_id::float8 AS "from", to_id::float8 AS "to" FROM gaps
     WHERE event_type = 'depth' AND status = 'unrecoverable' AND from_id IS NOT NULL`,
  )
  return Map.groupBy(rows, ({ symbol }) => symbol)
}
