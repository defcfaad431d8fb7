import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { Queryable } from '../../foundation/store/database.ts'

/** What is audited. A range cuts trades by trade time and quotes by receipt. */
export interface Scope {
  /** Null: all. */
  readonly symbols: readonly string[] | null
  /** Milliseconds since the Unix epoch; null: from the first row. */
  readonly fromMs: number | null
  /** Not included; null: to the last row. */
  readonly toMs: number | null
}

export const EVERYTHING: Scope = { symbols: null, fromMs: null, toMs: null }

/** What every check is given. */
export interface CheckContext {
  /** Within the transaction whose snapshot is audited. */
  readonly connection: Queryable
  readonly scope: Scope
  /** Examples of a finding, at most. */
  readonly limit: number
}

const DAY = /^\d{4}-\d{2}-\d{2}$/
const TIME = /^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?Z?$/
const DAY_MS = 86_400_000

/**
 * A time in UTC as a person writes it: a day, or a day and a time. A day is its beginning, or its end where it is the
 * last that counts.
 *
 * @throws TapelineError `INPUT` when it is neither
 */
export function parseUtc(option: string, text: string, edge: 'from' | 'to'): number {
  const isDay = DAY.test(text)
  const parsed = isDay
    ? Date.parse(`${text}T00:00:00Z`)
    : TIME.test(text)
      ? Date.parse(`${text.replace(' ', 'T').replace(/Z?$/, '')}Z`)
      : Number.NaN
  // 30 February is taken for 2 March.
  if (Number.isNaN(parsed) || new Date(parsed).toISOString().slice(0, 10) !== text.slice(0, 10)) {
    throw new TapelineError('INPUT', `${option} ${text}: no such day or time`, {
      fix: 'Give a day or a time in UTC: 2026-01-31, or 2026-01-31T12:30:00.',
    })
  }
  return isDay && edge === 'to' ? parsed + DAY_MS : parsed
}

/** The scope's first and last moment as PostgreSQL takes them; infinite where it has none. */
export function timeBounds({ fromMs, toMs }: Scope, paddingMs = 0): [from: string, to: string] {
  return [
    fromMs === null ? '-infinity' : new Date(fromMs - paddingMs).toISOString(),
    toMs === null ? 'infinity' : new Date(toMs + paddingMs).toISOString(),
  ]
}

export function isCut({ fromMs, toMs }: Scope): boolean {
  return fromMs !== null || toMs !== null
}

/** Index look-ups first; dead letters are read only for a symbol that nothing else knows. */
const UNKNOWN = `SELECT symbol FROM unnest($1::text[]) AS asked (symbol)
  WHERE NOT EXISTS (SELECT FROM trades WHERE trades.symbol = asked.symbol)
    AND NOT EXISTS (SELECT FROM book_ticker WHERE book_ticker.symbol = asked.symbol)
    AND NOT EXISTS (SELECT FROM gaps WHERE gaps.symbol = asked.symbol)
    AND NOT EXISTS (SELECT FROM dead_letters WHERE key = convert_to(asked.symbol, 'UTF8')
      OR position(convert_to('"s":"' || asked.symbol || '"', 'UTF8') IN payload) > 0)
  ORDER BY symbol`

/**
 * A symbol that is spelt wrongly has nothing missing.
 *
 * @throws TapelineError `INPUT` naming the symbols of the scope of which there is no row, ledger row or dead letter
 */
export async function refuseUnknownSymbols({ connection, scope }: CheckContext): Promise<void> {
  if (scope.symbols === null) return
  const { rows } = await connection.query<{ symbol: string }>(UNKNOWN, [scope.symbols])
  if (rows.length === 0) return
  const names = rows.map(({ symbol }) => symbol).join(', ')
  throw new TapelineError(
    'INPUT',
    `--symbol ${names}: no row, no ledger row and no dead letter knows ${rows.length === 1 ? 'it' : 'them'}`,
    { fix: 'Name symbols that are stored; without --symbol all of them are audited.' },
  )
}
