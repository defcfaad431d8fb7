import { resolve } from 'node:path'
import type { ArchiveReader } from '../../foundation/archive/archive-reader.ts'
import type { ArchiveDay } from '../../foundation/archive/archive-snapshot.ts'
import type { DayList } from '../../foundation/archive/day-list.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { countText } from '../../foundation/telemetry/plural.ts'

/** The published files of a day and table. */
export interface PublishedDay {
  readonly table: string
  readonly date: string
  readonly list: DayList
  /** A path or URL for each file, in the order of the list. */
  readonly paths: readonly string[]
  /** Rows that are not in these files yet. */
  readonly lateRows: number
}

/**
 * Returns the files of a day of each table that is published.
 *
 * @throws TapelineError `ARCHIVE` if none is
 */
export async function publishedFiles(
  reader: ArchiveReader,
  tables: readonly string[],
  date: string,
): Promise<PublishedDay[]> {
  const days = await reader.read((snapshot) => Promise.all(tables.map((table) => snapshot.day(table, date))))
  const published = days.flatMap(({ table, list, pending }) =>
    list === null
      ? []
      : [
          {
            ...{ table, date, list },
            paths: list.files.map(({ key }) => placeOf(reader.store.name, key)),
            lateRows: rowsOf(pending, date),
          },
        ],
  )
  if (published.length > 0) return published
  const waiting = days.reduce((sum, { pending }) => sum + rowsOf(pending, date), 0)
  throw new TapelineError(
    'ARCHIVE',
    waiting === 0
      ? `${tables.join(', ')}: the archive has nothing of ${date}`
      : `${tables.join(', ')}: ${date} is not published yet; its ${countText(waiting)} rows are in segments`,
    {
      fix:
        waiting === 0
          ? '`bin/tapeline archive status` lists the days.'
          : 'The service publishes a day about half an hour after its end or its import, and within three hours; `bin/tapeline sql --archive` reads its rows before that.',
    },
  )
}

function rowsOf(pending: ArchiveDay['pending'], date: string): number {
  return pending.reduce((sum, { days }) => sum + (days[date] ?? 0), 0)
}

/** An absolute path, or the URL of an object. */
function placeOf(store: string, key: string): string {
  return store.includes('://') ? `${store}/${key}` : resolve(store, key)
}
