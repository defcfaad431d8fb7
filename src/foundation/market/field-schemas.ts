import { z } from 'zod'
import { DECIMAL, EPOCH_MAX, FIRST_TIME_MS, isSymbol, LAST_TIME_MS, SYMBOL } from './fields.ts'

/*
 * The rules of `fields.ts` as zod schemas, for less frequent data and for the JSON Schemas in docs.
 * `test/market-schemas.test.ts` compares both.
 */

/** A trade, aggregate trade or update id. */
export const idField = z.int().min(0)

/** Milliseconds since the Unix epoch. */
export const timeMsField = z
  .int()
  .min(FIRST_TIME_MS)
  .max(LAST_TIME_MS - 1)

/** Microseconds since the Unix epoch. */
export const timeUsField = z
  .int()
  .min(FIRST_TIME_MS * 1000)
  .max(LAST_TIME_MS * 1000 - 1)

/** A price or quantity, as text to keep every digit. */
export const decimalField = z.string().regex(DECIMAL)

/** Upper-case, which a JSON Schema cannot express for all letters. */
export const symbolField = z.string().regex(SYMBOL).refine(isSymbol, 'a symbol')

/** How often the exchange had restarted the id sequence. */
export const epochField = z.int().min(0).max(EPOCH_MAX)
