import type { DuckDBConnection, DuckDBResult, DuckDBValue } from '@duckdb/node-api'
import * as api from '@duckdb/node-api'
import { describeError } from '../runtime/errors.ts'

/** PostgreSQL's number of the type that is printed alike. */
const PRINTED_AS = { flag: 16, integer: 20, text: 25, json: 114, float: 701, decimal: 1700 } as const

/** Rows as PostgreSQL prints them: every digit, times in UTC. */
export interface EngineTexts {
  readonly columns: ReadonlyArray<{ readonly name: string; readonly typeId: number }>
  readonly rows: ReadonlyArray<ReadonlyArray<string | null>>
}

/** The engine refuses a query, or fails in it. The message is its first line. */
export class EngineError extends Error {
  /**
   * The engine's class of the error, such as `Catalog` (an unknown name) or `Out of Memory`, with which
   * its messages begin: its API has no code. Empty for those of this program.
   */
  readonly kind: string

  constructor(cause: unknown) {
    super(describeError(cause).split('\n', 1)[0] ?? '', { cause })
    this.name = 'EngineError'
    this.kind = /^(?:Failed to extract statements: )?([\w ]+?) Error:/.exec(this.message)?.[1] ?? ''
  }
}

const SECOND_US = 1_000_000n

const INTEGERS: ReadonlySet<api.DuckDBTypeId> = new Set([
  api.DuckDBTypeId.TINYINT,
  api.DuckDBTypeId.SMALLINT,
  api.DuckDBTypeId.INTEGER,
  api.DuckDBTypeId.BIGINT,
  api.DuckDBTypeId.UTINYINT,
  api.DuckDBTypeId.USMALLINT,
  api.DuckDBTypeId.UINTEGER,
  api.DuckDBTypeId.UBIGINT,
])

/**
 * Runs one statement that only reads.
 *
 * @throws EngineError for several statements, one that changes something, and what the engine refuses
 */
export async function* textsOf(connection: DuckDBConnection, sql: string): AsyncGenerator<EngineTexts> {
  const result = await start(connection, sql)
  const columns = result.deduplicatedColumnNames().map((name, i) => ({
    name,
    typeId: PRINTED_AS[kindOf(result, i)],
  }))
  let isEmpty = true
  try {
    for await (const rows of result.yieldRows()) {
      if (rows.length === 0) continue
      yield { columns, rows: rows.map((row) => row.map(textOf)) }
      isEmpty = false
    }
  } catch (error) {
    throw new EngineError(error)
  }
  if (isEmpty) yield { columns, rows: [] }
}

/** EXPLAIN ANALYZE runs what it explains, so that must be a SELECT as well. */
const EXPLAIN = /^\s*explain(\s+analyze)?\s+/i

async function start(connection: DuckDBConnection, sql: string): Promise<DuckDBResult> {
  try {
    await requireSelect(connection, sql.replace(EXPLAIN, ''))
    return await connection.stream(sql)
  } catch (error) {
    throw new EngineError(error)
  }
}

async function requireSelect(connection: DuckDBConnection, sql: string): Promise<void> {
  const statements = await connection.extractStatements(sql)
  if (statements.count !== 1) throw new Error(`Expected one statement, not ${statements.count}`)
  const { statementType } = await statements.prepare(0)
  if (statementType !== api.StatementType.SELECT)
    throw new Error(`Only SELECT is allowed, not ${api.StatementType[statementType]}`)
}

function kindOf(result: DuckDBResult, column: number): keyof typeof PRINTED_AS {
  const id = result.columnTypeId(column)
  if (INTEGERS.has(id)) return 'integer'
  switch (id) {
    case api.DuckDBTypeId.BOOLEAN:
      return 'flag'
    case api.DuckDBTypeId.FLOAT:
    case api.DuckDBTypeId.DOUBLE:
      return 'float'
    case api.DuckDBTypeId.DECIMAL:
    case api.DuckDBTypeId.HUGEINT:
    case api.DuckDBTypeId.UHUGEINT:
      return 'decimal'
    default:
      return result.columnType(column).alias === 'JSON' ? 'json' : 'text'
  }
}

function textOf(value: DuckDBValue): string | null {
  if (value === null) return null
  if (typeof value === 'boolean') return value ? 't' : 'f'
  if (value instanceof api.DuckDBTimestampTZValue) return `${timeText(value.micros)}+00`
  if (value instanceof api.DuckDBTimestampValue) return timeText(value.micros)
  if (value instanceof api.DuckDBBlobValue) return `\\x${Buffer.from(value.bytes).toString('hex')}`
  return String(value)
}

/** `2026-01-31 12:34:56.123456`, without zeros at the end of the fraction. */
function timeText(micros: bigint): string {
  const fraction = ((micros % SECOND_US) + SECOND_US) % SECOND_US
  const whole = new Date(Number((micros - fraction) / 1000n)).toISOString().slice(0, 19).replace('T', ' ')
  return fraction === 0n ? whole : `${whole}.${String(fraction).padStart(6, '0').replace(/0+$/, '')}`
}
