import { InvalidArgumentError } from 'commander'

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const
/** The longest time that a timer can wait: 24 days. */
const LONGEST_MS = 2 ** 31 - 1

/**
 * Parses `30s` to 30000. Accepts milliseconds, seconds, minutes and hours; a number needs a unit.
 */
export function parseDuration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text.trim())
  const unit = match?.[2]
  const ms =
    unit === 'ms' || unit === 's' || unit === 'm' || unit === 'h' ? Number(match?.[1]) * UNIT_MS[unit] : 0
  if (ms > 0 && ms <= LONGEST_MS) return Math.ceil(ms)
  throw new InvalidArgumentError('Expected a duration of at most 24 days, like 500ms, 30s, 10m or 2h.')
}
