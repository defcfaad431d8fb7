import { isSymbol } from '../foundation/market/fields.ts'
import type { TextReader, TextRow } from '../foundation/store/text-reader.ts'

const MAX_WORDS = 10

const STORED = `SELECT symbol FROM unnest(string_to_array($1, ',')) AS asked (symbol)
  WHERE EXISTS (SELECT FROM trades WHERE trades.symbol = asked.symbol)
    OR EXISTS (SELECT FROM book_ticker WHERE book_ticker.symbol = asked.symbol)`

/** Whether a result has no row, or one row of zeros and nulls. */
export function isNothing(rows: readonly TextRow[]): boolean {
  const [first = []] = rows
  return rows.length <= 1 && first.every((text) => text === null || text === '0')
}

/** Returns those of the symbols that the database has. */
export async function databaseSymbols(reader: TextReader, symbols: readonly string[]): Promise<string[]> {
  const { rows } = await reader.query(STORED, [symbols.join()])
  return rows.map(([symbol]) => symbol ?? '')
}

/**
 * A hint for a query that found nothing because it names a stored symbol in lower case; or null.
 *
 * @param stored returns those of the symbols that are stored
 */
export async function hintAtCase(
  query: string,
  stored: (symbols: readonly string[]) => Promise<string[]>,
): Promise<string | null> {
  const words = new Set([...query.matchAll(/'([^']+)'/g)].map(([, word = '']) => word))
  const suspects = [...words]
    .filter((word) => word !== word.toUpperCase() && isSymbol(word.toUpperCase()))
    .slice(0, MAX_WORDS)
  if (suspects.length === 0) return null
  const known = new Set(await stored(suspects.map((word) => word.toUpperCase())))
  const names = suspects
    .filter((word) => known.has(word.toUpperCase()))
    .sort()
    .map((word) => `'${word.toUpperCase()}', not '${word}'`)
  if (names.length === 0) return null
  return `Nothing was found. Symbols are stored in upper case: ${names.join('; ')}.`
}
