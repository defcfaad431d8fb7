/** The longest ban of the exchange is three days; a header that says more is not believed. */
const LONGEST_MS = 3 * 24 * 3_600_000

/**
 * How long a `Retry-After` header asks to wait, in milliseconds; null where it says nothing of use: absent, empty,
 * garbage, 0, or a time that has passed. Seconds or an HTTP date (RFC 9110, 10.2.3).
 *
 * @param nowMs the wall clock, milliseconds since the Unix epoch
 */
export function retryAfterMs(header: string | null, nowMs: number): number | null {
  const text = header?.trim() ?? ''
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1000 : httpDateMs(text) - nowMs
  return waitMs > 0 ? Math.min(waitMs, LONGEST_MS) : null
}

/** NaN for what is none: `Date.parse` alone takes much for a date that is not. */
function httpDateMs(text: string): number {
  return /^[A-Z][a-z]{2,8},? .*\d{2}:\d{2}:\d{2}/.test(text) ? Date.parse(text) : Number.NaN
}
