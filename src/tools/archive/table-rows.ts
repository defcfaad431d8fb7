import { open } from 'node:fs/promises'
import { ARCHIVE_TABLES, type ArchiveTable, storedRows } from '../../foundation/archive/tables.ts'
import type { EventType } from '../../foundation/market/event.ts'
import { csvLine, type TextReader } from '../../foundation/store/text-reader.ts'

const ROWS_AT_ONCE = 10_000

/** The rows of a day, with the columns of the archive's table. */
const QUERY = (type: EventType, { columns }: ArchiveTable) => {
  const [time] = columns
  // PostgreSQL prints booleans as `t`.
  const list = columns.map(({ name, kind }) => (kind === 'flag' ? `${name}::text` : name)).join()
  return `SELECT ${list} FROM ${storedRows(type)} AND ${time?.name} >= $1::timestamptz AND ${time?.name} < $2::timestamptz`
}

const ms = (column: string) => `(extract(epoch FROM ${column}) * 1000)::bigint`
const LEDGER = `SELECT ${ms('updated_at')}, json_build_object('gap_id', gap_id, 'revision', revision, 'symbol', symbol, 'event_type', event_type,
    'epoch', epoch, 'from_id', from_id, 'to_id', to_id, 'from_time', ${ms('from_time')}, 'to_time', ${ms('to_time')}, 'cause', cause,
    'status', status, 'reason', reason, 'detected_at', ${ms('detected_at')}, 'updated_at', ${ms('updated_at')},
    'closed_at', ${ms('closed_at')})::text
  FROM gaps`

/**
 * Writes the stored rows of a day as CSV without a header line, for {@link adoptDay}.
 *
 * @param bounds start of the day and of the next day
 */
export function writeTableRows(
  reader: TextReader,
  type: EventType,
  bounds: readonly [from: string, to: string],
  path: string,
  onRows: (count: number) => void,
): Promise<void> {
  return writeCsv(reader, QUERY(type, ARCHIVE_TABLES[type]), bounds, path, onRows)
}

/** Writes the stored ledger as CSV without a header line, for {@link adoptLedger}. */
export function writeLedger(reader: TextReader, path: string): Promise<void> {
  return writeCsv(reader, LEDGER, [], path, () => {})
}

async function writeCsv(
  reader: TextReader,
  query: string,
  values: readonly string[],
  path: string,
  onRows: (count: number) => void,
): Promise<void> {
  const file = await open(path, 'w')
  try {
    for await (const { rows } of reader.select(query, values, ROWS_AT_ONCE)) {
      await file.write(rows.map((row) => `${csvLine(row)}\n`).join(''))
      onRows(rows.length)
    }
  } finally {
    await file.close()
  }
}
