import { MICROSECONDS_IN, type TimeUnit } from './time-unit.ts'

/*
 * The rules for fields that can be stored exactly. Without them PostgreSQL would silently round 30
 * digits, accept `NaN` and `1e3`, and store a time in microseconds under the year 56569.
 */

/** Fits NUMERIC(20,8): at most 12 digits before the point and 8 after it, no sign, no exponent. */
export const DECIMAL = /^\d{1,12}(\.\d{1,8})?$/

/** 2017-01-01 and 2100-01-01, UTC, in milliseconds: the exchange opened in 2017. */
export const FIRST_TIME_MS = Date.UTC(2017, 0, 1)
export const LAST_TIME_MS = Date.UTC(2100, 0, 1)

export const FIRST_TIME_US = FIRST_TIME_MS * 1000
export const LAST_TIME_US = LAST_TIME_MS * 1000

/** Valid as Kafka key and text column: no NUL, no lone surrogate, limited length. */
export const SYMBOL = /^[\p{L}\p{N}_]{1,40}$/u

/**
 * The maximum number of restarts of an id sequence. With ten bits, `(epoch::bigint << 53) +
 * trade_id` orders all trades of a symbol, since ids are below 2^53.
 */
export const EPOCH_MAX = 1023

export function isDecimal(value: unknown): value is string {
  return typeof value === 'string' && DECIMAL.test(value)
}

/** A trade, aggregate trade, order or update id. */
export function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

/**
 * Since the Unix epoch. Milliseconds have 13 digits and microseconds 16, so no number is valid in
 * both units.
 */
export function isTime(value: unknown, unit: TimeUnit): value is number {
  return Number.isSafeInteger(value) && isTimeUs((value as number) * MICROSECONDS_IN[unit])
}

/** Microseconds since the Unix epoch. */
export function isTimeUs(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= FIRST_TIME_US && (value as number) < LAST_TIME_US
}

/** Upper-case, as in the exchange's events. */
export function isSymbol(value: unknown): value is string {
  return typeof value === 'string' && SYMBOL.test(value) && value === value.toUpperCase()
}
