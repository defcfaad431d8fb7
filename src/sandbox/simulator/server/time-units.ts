import { isTime } from '../../../foundation/market/fields.ts'
import { parseTimeUnit, type TimeUnit } from '../../../foundation/market/time-unit.ts'

/** The unit of requests without one, and of the simulated market. */
export const DEFAULT_TIME_UNIT: TimeUnit = 'millisecond'

/** The exchange's answer to an unknown unit ("Error codes", -1194). */
export const BAD_TIME_UNIT = {
  code: -1194,
  msg: "Invalid value for time unit; expected either 'MICROSECOND' or 'MILLISECOND'.",
} as const

/** Parses the unit of a parameter or header, in upper or lower case; null if unknown. */
export function askedTimeUnit(text: string | null | undefined): TimeUnit | null {
  if (text === null || text === undefined) return DEFAULT_TIME_UNIT
  const isOneCase = text === text.toUpperCase() || text === text.toLowerCase()
  return isOneCase ? parseTimeUnit(text.toLowerCase()) : null
}

/** A millisecond always gives the same microseconds: streams and REST agree. */
export function microsecondsOf(ms: number): number {
  return ms * 1000 + (((ms % 100_003) * 7919) % 1000)
}

/** Converts either unit to milliseconds. */
export function wholeMs(time: number): number {
  return isTime(time, 'microsecond') ? Math.floor(time / 1000) : time
}

const TIMES = /"([ET])":(\d{13})(?=[,}])/g

/** Converts the times of a simulated frame to microseconds. All other bytes stay unchanged. */
export function withMicroseconds(text: string): string {
  return text.replace(TIMES, (_, name: string, ms: string) => `"${name}":${microsecondsOf(Number(ms))}`)
}
