import { isSymbol } from '../foundation/market/fields.ts'
import type { TextReader, TextRow } from '../foundation/store/text-reader.ts'

const MAX_WORDS = 10

const STORED = `SELECT word FROM unnest(string_to_array($1, ',')) AS word
  WHERE EXISTS (SELECT FROM trades WHERE trades.symbol = upper(word)) OR EXISTS (SELECT FROM book_ticker WHERE book_ticker.symbol = upper(word))
  ORDER BY word`

/** Whether a result has no row, or one row of zeros and nulls. */
export function isNothing(rows: readonly TextRow[]): boolean {
  const [first = []] = rows
  return rows.length <= 1 && first.every((text) => text === null || text === '0')
}

/** A hint for a query that found nothing because it names a stored symbol in lower case; or null. */
export async function hintAtCase(reader: TextReader, query: string): Promise<string | null> {
  const words = new Set([...query.matchAll(/'([^']+)'/g)].map(([, word = '']) => word))
  const suspects = [...words].filter((word) => word !== word.toUpperCase() && isSymbol(word.toUpperCase()))
  if (suspects.length === 0) return null
  const { rows } = await reader.query(STORED, [suspects.slice(0, MAX_WORDS).join()])
  const known = rows.map(([word]) => word ?? '')
  if (known.length === 0) return null
  const names = known.map((word) => `'${word.toUpperCase()}', not '${word}'`)
  return `Nothing was found. Symbols are stored in upper case: ${names.join('; ')}.`
}
