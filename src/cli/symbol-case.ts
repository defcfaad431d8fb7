import { isSymbol } from '../foundation/market/fields.ts'
import type { TextReader, TextRow } from '../foundation/store/text-reader.ts'

/** Words of a query that are looked up, at most. */
const MAX_WORDS = 10

const STORED = `SELECT word FROM unnest(string_to_array($1, ',')) AS word
  WHERE EXISTS (SELECT FROM trades WHERE trades.symbol = upper(word)) OR EXISTS (SELECT FROM book_ticker WHERE book_ticker.symbol = upper(word))
  ORDER BY word`

/** Whether an answer says nothing: no row, or one of a query that sums up nothing. */
export function isNothing(rows: readonly TextRow[]): boolean {
  return (
    rows.length === 0 ||
    (rows.length === 1 && rows[0]?.every((text) => text === null || text === '0') === true)
  )
}

/**
 * A symbol in small letters finds nothing, and PostgreSQL sees no mistake in it.
 *
 * @returns what to say to a query that found nothing; null where no word in it is a stored symbol in other letters
 */
export async function hintAtCase(reader: TextReader, query: string): Promise<string | null> {
  const words = [...query.matchAll(/'([^']+)'/g)].map(([, word = '']) => word)
  const suspects = [...new Set(words)].filter(
    (word) => word !== word.toUpperCase() && isSymbol(word.toUpperCase()),
  )
  if (suspects.length === 0) return null
  const { rows } = await reader.query(STORED, [suspects.slice(0, MAX_WORDS).join()])
  const known = rows.map(([word]) => word ?? '')
  if (known.length === 0) return null
  const names = known.map((word) => `'${word.toUpperCase()}', not '${word}'`)
  return `Nothing was found. Symbols are stored in capitals: ${names.join('; ')}.`
}
