import type { IdRange } from '../../foundation/market/id-ranges.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { Queryable } from '../../foundation/store/database.ts'

/** The audited part. A range selects trades by trade time and quotes by receipt time. */
export interface Scope {
  /** Null means all. */
  readonly symbols: readonly string[] | null
  /** Milliseconds since the Unix epoch; null means from the first row. */
  readonly fromMs: number | null
  /** Exclusive; null means to the last row. */
  readonly toMs: number | null
}

export const EVERYTHING: Scope = { symbols: null, fromMs: null, toMs: null }

/** The input of every check. */
export interface CheckContext {
  /** In the transaction whose snapshot is audited. */
  readonly connection: Queryable
  readonly scope: Scope
  /** Maximum number of examples per finding. */
  readonly limit: number
}

const UTC = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?Z?)?$/
const DAY_MS = 86_400_000

/** Milliseconds of a day, or a day and a time, in UTC; null if it is neither. */
export function utcMs(text: string): number | null {
  const [day = '', time = '00:00'] = text.replace(/Z$/, '').split(/[T ]/)
  const ms = UTC.test(text) ? Date.parse(`${day}T${time}Z`) : Number.NaN
  // Date.parse reads 30 February as 2 March.
  return Number.isNaN(ms) || !new Date(ms).toISOString().startsWith(day) ? null : ms
}

/** Parses a UTC time; a day means its start, or its end for `to`. @throws TapelineError `INPUT` */
export function parseUtc(option: string, text: string, edge: 'from' | 'to'): number {
  const ms = utcMs(text)
  if (ms === null) {
    throw new TapelineError('INPUT', `${option} ${text}: no such day or time`, {
      fix: 'Give a day or a time in UTC: 2026-01-31, or 2026-01-31T12:30:00.',
    })
  }
  return edge === 'to' && !text.includes(':') ? ms + DAY_MS : ms
}

/** The bounds of the scope for PostgreSQL; infinite where there is none. */
export function timeBounds({ fromMs, toMs }: Scope, paddingMs = 0): [from: string, to: string] {
  return [
    fromMs === null ? '-infinity' : new Date(fromMs - paddingMs).toISOString(),
    toMs === null ? 'infinity' : new Date(toMs + paddingMs).toISOString(),
  ]
}

const within = (time: string, from: string, to: string) =>
  `${time} >= ${from}::timestamptz AND ${time} < ${to}::timestamptz`

/** SQL: whether a row is in the scope; `$1` to `$3` are {@link scopeValues}. */
export function inScope(time: string): string {
  return `($1::text[] IS NULL OR symbol = ANY($1)) AND ${within(time, '$2', '$3')}`
}

export function scopeValues(scope: Scope): unknown[] {
  return [scope.symbols, ...timeBounds(scope)]
}

/** SQL: whether a trade is of a sequence and in the scope; `$1` to `$5` are {@link sequenceValues}. */
export const IN_SEQUENCE = `symbol = $1 AND event_type = $2 AND epoch = $3 AND ${within('trade_time', '$4', '$5')}`

/** SQL: the same for a change of an order book. */
export const IN_DEPTH = `symbol = $1 AND $2::text = 'depth' AND epoch = $3 AND ${within('event_time', '$4', '$5')}`

export function sequenceValues(
  scope: Scope,
  { symbol, eventType, epoch }: { symbol: string; eventType: string; epoch: number },
): unknown[] {
  return [symbol, eventType, epoch, ...timeBounds(scope)]
}

/** The first and the last id of each range, for `unnest`. */
export function rangeValues(ranges: readonly IdRange[]): [froms: number[], tos: number[]] {
  return [ranges.map(({ from }) => from), ranges.map(({ to }) => to)]
}

/** The tables of rows, with their columns in SQL. */
export const TABLES = {
  trades: { time: 'trade_time', id: 'trade_id', type: 'event_type', epoch: 'epoch' },
  book_ticker: { time: 'ingestion_timestamp', id: 'update_id', type: "'bookTicker'", epoch: 'NULL::integer' },
  depth_updates: { time: 'event_time', id: 'last_update_id', type: "'depth'", epoch: 'epoch' },
  depth_snapshots: {
    time: 'ingestion_timestamp',
    id: 'last_update_id',
    type: "'depthSnapshot'",
    epoch: 'epoch',
  },
} as const

export type Table = keyof typeof TABLES

/** Those of trades and quotes. */
export const TICK_TABLES = ['trades', 'book_ticker'] as const

export const TABLE_NAMES = Object.keys(TABLES) as [Table, ...Table[]]

/** SQL: a time as `2026-01-31T12:34:56.123Z`. */
export function isoText(time: string): string {
  return `to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`
}

export function isCut({ fromMs, toMs }: Scope): boolean {
  return fromMs !== null || toMs !== null
}

/** SQL: bytes as hexadecimal digits. */
const hexOf = (bytes: string) => `encode(${bytes}, 'hex')`

/** Looks in indexes first. Reads dead letters only for a symbol that is found nowhere else. */
const UNKNOWN = `SELECT symbol FROM unnest($1::text[]) AS asked (symbol)
  WHERE NOT EXISTS (SELECT 1 FROM trades WHERE trades.symbol = asked.symbol)
    AND NOT EXISTS (SELECT 1 FROM book_ticker WHERE book_ticker.symbol = asked.symbol)
    AND NOT EXISTS (SELECT 1 FROM depth_updates WHERE depth_updates.symbol = asked.symbol)
    AND NOT EXISTS (SELECT 1 FROM gaps WHERE gaps.symbol = asked.symbol)
    AND NOT EXISTS (SELECT 1 FROM dead_letters WHERE key = convert_to(asked.symbol, 'UTF8')
      OR position(${hexOf(`convert_to('"s":"' || asked.symbol || '"', 'UTF8')`)} IN ${hexOf('payload')}) > 0)
  ORDER BY symbol`

/**
 * Refuses unknown symbols: a misspelt symbol would have nothing missing.
 * @throws TapelineError `INPUT` naming the symbols of the scope without a row, ledger row or dead
 *   letter
 */
export async function refuseUnknownSymbols({ connection, scope }: CheckContext): Promise<void> {
  if (scope.symbols === null) return
  const { rows } = await connection.query<{ symbol: string }>(UNKNOWN, [scope.symbols])
  if (rows.length === 0) return
  const names = rows.map(({ symbol }) => symbol).join(', ')
  throw new TapelineError(
    'INPUT',
    `--symbol ${names}: no row, ledger row or dead letter has ${rows.length === 1 ? 'this symbol' : 'these symbols'}`,
    { fix: 'Name symbols that are stored; without --symbol all of them are audited.' },
  )
}
