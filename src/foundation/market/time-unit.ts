/** What the exchange counts its times in; the first is the default. One deployment has one, since a trade's time is part of its identity. */
export const TIME_UNITS = ['microsecond', 'millisecond'] as const

export type TimeUnit = (typeof TIME_UNITS)[number]

/** Microseconds in one. */
export const MICROSECONDS_IN: Readonly<Record<TimeUnit, number>> = { microsecond: 1, millisecond: 1000 }

/** The unit as the exchange spells it, in the URL of a stream (`timeUnit`) and in {@link TIME_UNIT_HEADER}. */
export function exchangeTimeUnit(unit: TimeUnit): string {
  return unit.toUpperCase()
}

/** By this header a REST request asks for a unit. */
export const TIME_UNIT_HEADER = 'X-MBX-TIME-UNIT'

/** What topics and tables were begun in that name an exchange and no unit. */
export const UNMARKED_TIME_UNIT: TimeUnit = 'millisecond'

/** Null for anything else. */
export function parseTimeUnit(text: string | null | undefined): TimeUnit | null {
  return TIME_UNITS.find((unit) => unit === text) ?? null
}

/** As PostgreSQL takes it: `2026-01-31T12:34:56.123456Z`. */
export function isoOfUs(us: number): string {
  const ms = Math.floor(us / 1000)
  return `${new Date(ms).toISOString().slice(0, -1)}${String(us - ms * 1000).padStart(3, '0')}Z`
}
