import { z } from 'zod'
import { idField, levelsField } from '../market/fields.ts'
import { askRest, type NoAnswer, type RestContext } from './rest-answer.ts'

/** Weight of a request by its limit of levels per side, of the 6,000 per minute and IP. */
export const DEPTH_WEIGHTS = [
  { limit: 100, weight: 5 },
  { limit: 500, weight: 25 },
  { limit: 1000, weight: 50 },
  { limit: 5000, weight: 250 },
] as const

const BOOK = z.object({ lastUpdateId: idField, bids: levelsField, asks: levelsField })

/** An order book as REST returns it, the best levels first. */
export type RestBook = z.infer<typeof BOOK>

export type BookOutcome =
  | { readonly kind: 'book'; readonly book: RestBook; readonly usedWeight?: number | null }
  | NoAnswer

/** Requests the best `limit` levels of each side. Never rejects; a request is aborted with the signal. */
export type FetchBook = (symbol: string, limit: number, signal: AbortSignal) => Promise<BookOutcome>

/** Returns requests to `GET /api/v3/depth`. */
export function depthRest(context: RestContext): FetchBook {
  const read = (body: unknown, usedWeight: number | null): BookOutcome => ({
    kind: 'book',
    book: BOOK.parse(body),
    usedWeight,
  })
  return (symbol, limit, signal) => {
    const query = new URLSearchParams({ symbol, limit: String(limit) })
    return askRest(context, `depth?${query}`, {}, read, signal)
  }
}
