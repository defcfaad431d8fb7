import { z } from 'zod'
import { MICROSECONDS_IN, type TimeUnit } from './time-unit.ts'

/*
 * The rules for fields that can be stored exactly. Without them PostgreSQL would silently round 30
 * digits, accept `NaN` and `1e3`, and store a time in microseconds under the year 56569.
 */

/** Fits NUMERIC(20,8): at most 12 digits before the point and 8 after it, no sign, no exponent. */
export const DECIMAL = /^\d{1,12}(\.\d{1,8})?$/

/** The same rule, for `decimalEnd`. */
export const DECIMAL_DIGITS = { whole: 12, fraction: 8 } as const

/** The most levels per side that REST returns. */
export const SNAPSHOT_LIMIT_MAX = 5000

export function isSnapshotLimit(value: unknown): value is number {
  return isId(value) && value >= 1 && value <= SNAPSHOT_LIMIT_MAX
}

/** 2017-01-01 and 2100-01-01, UTC, in milliseconds: the exchange opened in 2017. */
export const FIRST_TIME_MS = Date.UTC(2017, 0, 1)
export const LAST_TIME_MS = Date.UTC(2100, 0, 1)

export const FIRST_TIME_US = FIRST_TIME_MS * 1000
export const LAST_TIME_US = LAST_TIME_MS * 1000

/** Valid as Kafka key and text column: no NUL, no lone surrogate, limited length. */
export const SYMBOL = /^[\p{L}\p{N}_]{1,40}$/u

/** Maximum restarts of ids: with ten bits, `(epoch::bigint << 53) + trade_id` orders all trades. */
export const EPOCH_MAX = 1023

export function isDecimal(value: unknown): value is string {
  return typeof value === 'string' && DECIMAL.test(value)
}

/** A trade, aggregate trade, order or update id. */
export function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

/** Milliseconds since the Unix epoch have 13 digits, microseconds 16: no number is valid in both units. */
export function isTime(value: unknown, unit: TimeUnit): value is number {
  return Number.isSafeInteger(value) && isTimeUs((value as number) * MICROSECONDS_IN[unit])
}

export function isTimeUs(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= FIRST_TIME_US && (value as number) < LAST_TIME_US
}

/** Upper-case, as in the exchange's events. */
export function isSymbol(value: unknown): value is string {
  return typeof value === 'string' && SYMBOL.test(value) && value === value.toUpperCase()
}

/*
 * The same rules as zod schemas, for less frequent data and for the JSON Schemas in docs.
 * `test/market-schemas.test.ts` compares both.
 */

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

/** Levels of one side of an order book. */
export const levelsField = z.array(z.tuple([decimalField, decimalField]))

/** Levels per side. */
export const snapshotLimitField = z.int().min(1).max(SNAPSHOT_LIMIT_MAX)

/** Upper-case, which a JSON Schema cannot express for all letters. */
export const symbolField = z.string().regex(SYMBOL).refine(isSymbol, 'a symbol')

/** How often the exchange had restarted the id sequence. */
export const epochField = z.int().min(0).max(EPOCH_MAX)
