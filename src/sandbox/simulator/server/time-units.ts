import { isTime } from '../../../foundation/market/fields.ts'
import { parseTimeUnit, type TimeUnit } from '../../../foundation/market/time-unit.ts'

/** The unit of a request that names none, and the one that the simulated market counts in. */
export const DEFAULT_TIME_UNIT: TimeUnit = 'millisecond'

/** The exchange's answer to a unit that is none ("Error codes", -1194). */
export const BAD_TIME_UNIT = {
  code: -1194,
  msg: "Invalid value for time unit; expected either 'MICROSECOND' or 'MILLISECOND'.",
} as const

/**
 * What a parameter or header asks for, in upper or lower case.
 *
 * @returns null for what is no unit
 */
export function askedTimeUnit(text: string | null | undefined): TimeUnit | null {
  if (text === null || text === undefined) return DEFAULT_TIME_UNIT
  const isOneCase = text === text.toUpperCase() || text === text.toLowerCase()
  return isOneCase ? parseTimeUnit(text.toLowerCase()) : null
}

/** A moment of the simulated market: always the same microseconds for a millisecond, so that streams and REST agree and none falls. */
export function microsecondsOf(ms: number): number {
  return ms * 1000 + (((ms % 100_003) * 7919) % 1000)
}

/** Either unit, to milliseconds. */
export function wholeMs(time: number): number {
  return isTime(time, 'microsecond') ? Math.floor(time / 1000) : time
}

const TIMES = /"([ET])":(\d{13})(?=[,}])/g

/** A frame of the simulated market with its times in microseconds; every other byte stays. */
export function withMicroseconds(text: string): string {
  return text.replace(TIMES, (_, name: string, ms: string) => `"${name}":${microsecondsOf(Number(ms))}`)
}
