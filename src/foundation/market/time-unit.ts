/** The first is the default. A deployment uses one, since a trade's time is part of its identity. */
export const TIME_UNITS = ['microsecond', 'millisecond'] as const

export type TimeUnit = (typeof TIME_UNITS)[number]

export const MICROSECONDS_IN: Readonly<Record<TimeUnit, number>> = { microsecond: 1, millisecond: 1000 }

/** Returns the exchange's spelling, for stream URLs (`timeUnit`) and {@link TIME_UNIT_HEADER}. */
export function exchangeTimeUnit(unit: TimeUnit): string {
  return unit.toUpperCase()
}

/** The header in which a REST request specifies the unit. */
export const TIME_UNIT_HEADER = 'X-MBX-TIME-UNIT'

/** The unit of topics and tables that name an exchange but no unit. */
export const UNMARKED_TIME_UNIT: TimeUnit = 'millisecond'

/** Returns null for any other text. */
export function parseTimeUnit(text: string | null | undefined): TimeUnit | null {
  return TIME_UNITS.find((unit) => unit === text) ?? null
}

/** Formats microseconds for PostgreSQL: `2026-01-31T12:34:56.123456Z`. */
export function isoOfUs(us: number): string {
  const ms = Math.floor(us / 1000)
  return `${new Date(ms).toISOString().slice(0, -1)}${String(us - ms * 1000).padStart(3, '0')}Z`
}
