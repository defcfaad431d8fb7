import type { SchemaElement } from 'hyparquet'
import { ARCHIVE_TABLES, type ColumnKind } from '../../foundation/archive/tables.ts'
import { byEventType, type EventType, isTradeType } from '../../foundation/market/event.ts'

/** Times in microseconds, and decimals in units of their eighth decimal: both are exact. */
export type ParquetValue = bigint | boolean | string | number | null

/** How the values of a column are written; `text` is as PostgreSQL formats it. */
interface KindFormat {
  readonly schema: Omit<SchemaElement, 'name'>
  readonly parquet: (text: string) => ParquetValue
  readonly csv: (text: string) => string
}

const asItIs = (text: string) => text

/** Nothing needs quotes in CSV: symbols have only letters, digits and underscores. */
export const KINDS = {
  time: {
    schema: {
      type: 'INT64',
      converted_type: 'TIMESTAMP_MICROS',
      logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' },
    },
    parquet: BigInt,
    csv: (text) => isoTime(BigInt(text)),
  },
  decimal: {
    // Twenty digits do not fit in eight bytes.
    schema: {
      type: 'FIXED_LEN_BYTE_ARRAY',
      type_length: 9,
      converted_type: 'DECIMAL',
      precision: 20,
      scale: 8,
      logical_type: { type: 'DECIMAL', precision: 20, scale: 8 },
    },
    // A NUMERIC(20,8) has all eight decimals.
    parquet: (text) => BigInt(text.replace('.', '')),
    csv: asItIs,
  },
  id: { schema: { type: 'INT64' }, parquet: BigInt, csv: asItIs },
  number: { schema: { type: 'INT32' }, parquet: Number, csv: asItIs },
  flag: {
    schema: { type: 'BOOLEAN' },
    parquet: (text) => text === 't',
    csv: (text) => String(text === 't'),
  },
  word: {
    schema: { type: 'BYTE_ARRAY', converted_type: 'UTF8', logical_type: { type: 'STRING' } },
    parquet: asItIs,
    csv: asItIs,
  },
} as const satisfies Record<ColumnKind, KindFormat>

/** Exported columns of each type, in this order. Rows are sorted by the first column, then by id. */
export const COLUMNS = byEventType((type) => ARCHIVE_TABLES[type].columns)

export const ID_COLUMN = byEventType((type) => (isTradeType(type) ? 'trade_id' : 'update_id'))

/** `$1` is the symbol, `$2` the start of the day, `$3` the start of the next day. */
export function selectOf(type: EventType): string {
  const columns = COLUMNS[type].map(({ name, kind }) =>
    kind === 'time' ? `(extract(epoch FROM ${name}) * 1000000)::bigint` : name,
  )
  const [table, which] = !isTradeType(type) ? ['book_ticker', ''] : ['trades', `AND event_type = '${type}' `]
  const time = COLUMNS[type][0]?.name
  return `SELECT ${columns.join(', ')} FROM ${table}
    WHERE symbol = $1 ${which}AND ${time} >= $2::timestamptz AND ${time} < $3::timestamptz ORDER BY ${time}, ${ID_COLUMN[type]}`
}

export function parquetSchema(type: EventType): SchemaElement[] {
  const elements = COLUMNS[type].map(
    ({ name, kind, isNullable }): SchemaElement => ({
      name,
      repetition_type: isNullable === true ? 'OPTIONAL' : 'REQUIRED',
      ...KINDS[kind].schema,
    }),
  )
  return [{ name: 'root', num_children: elements.length }, ...elements]
}

/** `2026-01-31T12:34:56.123456Z` */
export function isoTime(us: bigint): string {
  const ms = new Date(Number(us / 1000n)).toISOString().slice(0, -1)
  return `${ms}${String(us % 1000n).padStart(3, '0')}Z`
}
