import type { ArchiveReader } from '../../foundation/archive/archive-reader.ts'
import type { RowRange } from '../../foundation/archive/archive-snapshot.ts'
import { EngineError, type EngineTexts } from '../../foundation/archive/engine-texts.ts'
import { DAY_TABLES } from '../../foundation/archive/tables.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { createViews, VIEW_NAMES } from './views.ts'

export interface ArchiveQuery {
  /** One SELECT of DuckDB's SQL. */
  readonly sql: string
  /** Limits the rows that it sees. */
  readonly range: RowRange
  readonly timeoutMs: number
}

/**
 * Runs a query over an archive. If compaction removes files meanwhile, it runs again, unless `print`
 * has taken rows.
 *
 * @param print takes the rows in portions, at least one
 * @throws TapelineError `ARCHIVE` for a query that the engine refuses, or that takes too long
 */
export async function queryArchive<Result>(
  reader: ArchiveReader,
  { sql, range, timeoutMs }: ArchiveQuery,
  print: (portions: AsyncIterable<EngineTexts>) => Promise<Result>,
): Promise<Result> {
  const { duckDb } = reader
  let hasPrinted = false
  let isLate = false
  async function* portions() {
    for await (const some of duckDb.texts(sql)) {
      hasPrinted = true
      yield some
    }
  }
  try {
    return await reader.read(async (snapshot) => {
      await createViews(duckDb, snapshot, sql, range)
      const timer = setTimeout(() => {
        isLate = true
        duckDb.interrupt()
      }, timeoutMs)
      try {
        return await print(portions())
      } catch (error) {
        if (!hasPrinted || !(error instanceof EngineError)) throw error
        throw refused(error)
      } finally {
        clearTimeout(timer)
      }
    })
  } catch (error) {
    if (isLate)
      throw new TapelineError('ARCHIVE', `The query took more than ${timeoutMs / 1000} s`, {
        fix: 'Narrow it, or use a longer --timeout.',
        cause: error,
      })
    throw error instanceof EngineError ? refused(error) : error
  }
}

const NAMES = `The tables and views are ${VIEW_NAMES.join(', ')}`

/** By the engine's class of an error. */
const FIXES: Readonly<Record<string, string>> = {
  Catalog: `${NAMES}.`,
  Binder: `${NAMES}; for the columns of one: DESCRIBE raw_trades.`,
  'Out of Memory': 'Raise ARCHIVE_MEMORY_MB, or read fewer days: --from and --to.',
  IO: 'Check that ARCHIVE_TEMP has free space. `bin/tapeline archive check` names damaged files.',
  Conversion: 'Correct the value or its type.',
}

function refused(error: EngineError): TapelineError {
  const fix = FIXES[error.kind] ?? "Give one SELECT of DuckDB's SQL, in quotes."
  return new TapelineError('ARCHIVE', error.message, { fix, cause: error })
}

/** Returns those of the symbols that published days have. */
export function archivedSymbols(reader: ArchiveReader, symbols: readonly string[]): Promise<string[]> {
  return reader.read(async (snapshot) => {
    const found = new Set<string>()
    for (const table of DAY_TABLES.keys())
      for (const date of await snapshot.dates(table))
        for (const symbol of symbols)
          if (Object.hasOwn((await snapshot.day(table, date)).list?.symbols ?? {}, symbol)) found.add(symbol)
    return [...found]
  })
}
