import {
  DuckDBBlobValue,
  DuckDBDecimalValue,
  DuckDBListValue,
  DuckDBTimestampTZValue,
  DuckDBUUIDValue,
} from '@duckdb/node-api'
import { type DuckDb, quoted } from '../../foundation/archive/duckdb.ts'
import { EngineError } from '../../foundation/archive/engine-texts.ts'
import type { Queryable } from '../../foundation/store/database.ts'

/** Functions of PostgreSQL that statements for both stores use, as far as they use them. */
const FUNCTIONS = [
  // The format is that of `isoText`.
  "to_char(moment, format) AS strftime(moment, '%Y-%m-%dT%H:%M:%S.%gZ')",
  "trim_scale(decimal_value) AS rtrim(rtrim(decimal_value::VARCHAR, '0'), '.')",
  'width_bucket(value, bounds) AS len(list_filter(bounds, lambda one: one <= value))',
  'convert_to(words, encoding) AS from_hex(hex(words))',
  'encode(bytes, format) AS lower(hex(bytes))',
]

/** The planner of PostgreSQL has settings that mean nothing to this engine. */
const IS_SETTING = /^SET LOCAL /

/**
 * Lets statements that are written for PostgreSQL run on the engine. They must use what both know:
 * no multiranges, no JSON, no `format`. Values have the types that a `Database` returns. Rejects with
 * an `EngineError`.
 */
export async function archiveQueries(duckDb: DuckDb): Promise<Queryable> {
  for (const one of FUNCTIONS) await duckDb.run(`CREATE OR REPLACE TEMP MACRO ${one}`)
  return {
    async query<Row>(text: string, values: readonly unknown[] = []) {
      if (IS_SETTING.test(text)) return { rows: [], rowCount: 0 }
      const rows = await duckDb
        .rows<Readonly<Record<string, unknown>>>(withValues(text, values))
        .catch((error: unknown) => {
          throw new EngineError(error)
        })
      const typed = rows.map((row) =>
        Object.fromEntries(Object.entries(row).map(([name, value]) => [name, converted(value)])),
      )
      return { rows: typed as Row[], rowCount: rows.length }
    },
  }
}

/** The API's parameters have no types that fit an array or a null. */
function withValues(text: string, values: readonly unknown[]): string {
  return text.replaceAll(/\$(\d+)/g, (_all, number: string) => literal(values[Number(number) - 1]))
}

function literal(value: unknown): string {
  if (typeof value === 'string') return quoted(value)
  if (typeof value === 'number' || typeof value === 'bigint') return `(${value})`
  if (typeof value === 'boolean') return String(value)
  if (value === null) return 'NULL'
  if (Array.isArray(value)) return `[${value.map(literal).join()}]`
  if (value instanceof Uint8Array)
    return `from_hex('${Buffer.from(value.buffer, value.byteOffset, value.length).toString('hex')}')`
  throw new TypeError(`No literal for ${String(value)}`)
}

/** Numbers of 64 bits and decimals become texts, as with `pg`. */
function converted(value: unknown): unknown {
  if (typeof value === 'bigint') return String(value)
  if (value instanceof DuckDBTimestampTZValue) return new Date(Number(value.micros / 1000n))
  if (value instanceof DuckDBListValue) return value.items.map(converted)
  if (value instanceof DuckDBBlobValue) return Buffer.from(value.bytes)
  if (value instanceof DuckDBDecimalValue || value instanceof DuckDBUUIDValue) return value.toString()
  return value
}
