import { MICROSECONDS_IN, type TimeUnit } from './time-unit.ts'

/*
 * What a field of an event must look like to be stored exactly. PostgreSQL would round 30 digits, take `NaN`
 * and `1e3`, and file a time in microseconds under the year 56569, all without a word; so these rules stand
 * before it.
 */

/** Fits NUMERIC(20,8): at most 12 digits before the point and 8 after it, no sign, no exponent. */
export const DECIMAL = /^\d{1,12}(\.\d{1,8})?$/

/** 2017-01-01 and 2100-01-01, UTC, in milliseconds: the exchange opened in 2017. */
export const FIRST_TIME_MS = Date.UTC(2017, 0, 1)
export const LAST_TIME_MS = Date.UTC(2100, 0, 1)

export const FIRST_TIME_US = FIRST_TIME_MS * 1000
export const LAST_TIME_US = LAST_TIME_MS * 1000

/** Kafka's key and a text column: no NUL, no lone surrogate, of sane length. */
export const SYMBOL = /^[\p{L}\p{N}_]{1,40}$/u

/**
 * The highest number of restarts of an id sequence. Ten bits: `(epoch::bigint << 53) + trade_id` orders all trades of a symbol,
 * since ids are below 2^53.
 */
export const EPOCH_MAX = 1023

export function isDecimal(value: unknown): value is string {
  return typeof value === 'string' && DECIMAL.test(value)
}

/** A trade, aggregate trade, order or update id. */
export function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

/** Since the Unix epoch. No number is one in both units: milliseconds have 13 digits, microseconds 16. */
export function isTime(value: unknown, unit: TimeUnit): value is number {
  return Number.isSafeInteger(value) && isTimeUs((value as number) * MICROSECONDS_IN[unit])
}

/** Microseconds since the Unix epoch. */
export function isTimeUs(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= FIRST_TIME_US && (value as number) < LAST_TIME_US
}

/** As the exchange's events spell it: upper-case. */
export function isSymbol(value: unknown): value is string {
  return typeof value === 'string' && SYMBOL.test(value) && value === value.toUpperCase()
}
