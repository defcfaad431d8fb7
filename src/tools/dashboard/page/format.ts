export const NONE = '–'

const COUNT = new Intl.NumberFormat('en-US')

export function countText(value: number | null): string {
  return value === null ? NONE : COUNT.format(Math.round(value))
}

/** `812 kB`, `12.3 MB`, `1.2 GB`. */
export function bytesText(bytes: number): string {
  if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} kB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
}

/** A rate; slow rates have one decimal. */
export function rateText(value: number | null): string {
  if (value === null) return NONE
  return value < 10 ? value.toFixed(1) : countText(value)
}

export function msText(value: number | null): string {
  if (value === null) return NONE
  return `${Math.abs(value) < 10 ? value.toFixed(1) : countText(value)} ms`
}

/** `12:34:56`, UTC. */
export function timeText(ms: number): string {
  return new Date(ms).toISOString().slice(11, 19)
}

/** `12:34:56`, UTC, preceded by the date if it is not today. */
export function momentText(ms: number, nowMs: number): string {
  const iso = new Date(ms).toISOString()
  const isToday = iso.slice(0, 10) === new Date(nowMs).toISOString().slice(0, 10)
  return isToday ? timeText(ms) : `${iso.slice(0, 10)} ${timeText(ms)}`
}

/** `3 s`, `2 min 5 s`, `22 h 10 min`. */
export function durationText(ms: number | null): string {
  if (ms === null) return NONE
  const seconds = Math.max(0, ms) / 1000
  if (seconds > 0 && seconds < 0.1) return `${Math.max(1, Math.round(ms))} ms`
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 60) return `${Math.floor(seconds)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`
}

/** A price without trailing zeros, but with at least two decimals. */
export function priceText(price: string | null): string {
  return price === null ? NONE : price.replace(/(\.\d\d\d*?)0+$/, '$1')
}

/** The exact difference of two prices, calculated from their digits. */
export function spreadText(bid: string | null, ask: string | null): string {
  if (bid === null || ask === null) return NONE
  const units = scaled(ask) - scaled(bid)
  const digits = (units < 0n ? -units : units).toString().padStart(9, '0')
  return priceText(`${units < 0n ? '−' : ''}${digits.slice(0, -8)}.${digits.slice(-8)}`)
}

/** In units of the eighth decimal. */
function scaled(price: string): bigint {
  const [whole = '0', fraction = ''] = price.split('.')
  return BigInt(whole + fraction.padEnd(8, '0').slice(0, 8))
}
