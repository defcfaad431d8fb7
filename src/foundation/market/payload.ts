import { isDecimal, isId, isSymbol, isTime } from './fields.ts'
import type { TimeUnit } from './time-unit.ts'

/** `f` and `l` of an aggTrade that the exchange has invalidated. */
export const INVALIDATED = -1

/**
 * A `trade` as the exchange sends it. `E` is null in backfilled trades, because REST does not give
 * it.
 */
export interface TradePayload {
  readonly E: number | null
  readonly s: string
  readonly t: number
  readonly p: string
  readonly q: string
  readonly T: number
  readonly m: boolean
  /** The unit of `E` and `T`. */
  readonly unit: TimeUnit
}

/** An `aggTrade` of the trades `f`..`l`. Both are −1 if the exchange has invalidated it. */
export interface AggTradePayload {
  readonly E: number | null
  readonly s: string
  readonly a: number
  readonly p: string
  readonly q: string
  readonly f: number
  readonly l: number
  readonly T: number
  readonly m: boolean
  /** The unit of `E` and `T`. */
  readonly unit: TimeUnit
}

/** A `bookTicker`. It has no time; `u` increases, but is not contiguous. */
export interface BookTickerPayload {
  readonly u: number
  readonly s: string
  readonly b: string
  readonly B: string
  readonly a: string
  readonly A: string
}

export type Fields = Readonly<Record<string, unknown>>

/** Whether the value is a JSON object. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/*
 * Each reader returns the fields to store, or why the payload cannot be stored exactly: a short
 * stable text that names the field, used as a metric label and as the reason of a dead letter.
 * Other fields are ignored; the exchange adds some now and then.
 *
 * Times must be in the given unit; without one, the digits of `T` decide.
 */

export function readTrade(data: Fields, unit?: TimeUnit): TradePayload | string {
  if (data['e'] !== 'trade') return 'e is not trade'
  const common = readCommon(data, unit)
  if (typeof common === 'string') return common
  const { t } = data
  return isId(t) ? { ...common, t } : 't is not an id'
}

export function readAggTrade(data: Fields, unit?: TimeUnit): AggTradePayload | string {
  if (data['e'] !== 'aggTrade') return 'e is not aggTrade'
  const common = readCommon(data, unit)
  if (typeof common === 'string') return common
  const { a, f, l } = data
  if (!isId(a)) return 'a is not an id'
  if (f === INVALIDATED && l === INVALIDATED) return { ...common, a, f, l }
  if (!isId(f)) return 'f is not an id'
  if (!isId(l)) return 'l is not an id'
  return f <= l ? { ...common, a, f, l } : 'f is above l'
}

export function readBookTicker(data: Fields): BookTickerPayload | string {
  const { u, s, b, B, a, A } = data
  if (!isSymbol(s)) return 's is not a symbol'
  if (!isId(u)) return 'u is not an id'
  if (!isDecimal(b)) return 'b is not a decimal'
  if (!isDecimal(B)) return 'B is not a decimal'
  if (!isDecimal(a)) return 'a is not a decimal'
  return isDecimal(A) ? { u, s, b, B, a, A } : 'A is not a decimal'
}

/** Reads the fields common to `trade` and `aggTrade`. */
function readCommon(data: Fields, expected?: TimeUnit): Omit<TradePayload, 't'> | string {
  const { E, s, p, q, T, m } = data
  if (!isSymbol(s)) return 's is not a symbol'
  if (!isDecimal(p)) return 'p is not a decimal'
  if (!isDecimal(q)) return 'q is not a decimal'
  const unit = expected ?? (isTime(T, 'microsecond') ? 'microsecond' : 'millisecond')
  if (!isTime(T, unit)) return `T is not a time in ${unit}s`
  if (typeof m !== 'boolean') return 'm is not a boolean'
  if (isTime(E, unit)) return { E, s, p, q, T, m, unit }
  // Backfilled trades come from REST, which gives no event time.
  return E === undefined && data['source'] === 'backfill'
    ? { E: null, s, p, q, T, m, unit }
    : `E is not a time in ${unit}s`
}
