import { TapelineError } from '../../foundation/runtime/errors.ts'
import { utcMs } from '../verify/scope.ts'

const DAY_MS = 86_400_000

export interface Day {
  readonly name: string
  /** Milliseconds since the Unix epoch. */
  readonly fromMs: number
  /** Milliseconds since the Unix epoch; not included. */
  readonly toMs: number
  /** Start of the day and of the next day. */
  readonly bounds: readonly [from: string, to: string]
}

/** Maximum number of days in one call: ten years. */
const MAX_DAYS = 3660

/** Returns the days of a range, both ends included. @throws TapelineError `INPUT` */
export function parseDays(from: string, to: string, nowMs: number): Day[] {
  const first = parseDay('--from', from, nowMs)
  const last = parseDay('--to', to, nowMs)
  const count = (last.toMs - first.fromMs) / DAY_MS
  if (count < 1 || count > MAX_DAYS) {
    throw new TapelineError('INPUT', `--from ${from} --to ${to}: ${count < 1 ? 'no day' : 'too many days'}`, {
      fix: `Give a first and a last day, at most ${MAX_DAYS} in all.`,
    })
  }
  return Array.from({ length: count }, (_, i) => dayAt(first.fromMs + i * DAY_MS))
}

/** @param text `2026-01-31`, `today` or `yesterday` @throws TapelineError `INPUT` naming the option */
export function parseDay(option: string, text: string, nowMs: number): Day {
  const ago = { today: 0, yesterday: 1 }[text]
  const given = text.includes(':') ? null : utcMs(text)
  const fromMs = ago === undefined ? given : (Math.floor(nowMs / DAY_MS) - ago) * DAY_MS
  if (fromMs === null) {
    throw new TapelineError('INPUT', `${option} ${text}: no such day`, {
      fix: 'Give a day in UTC: 2026-01-31, today or yesterday.',
    })
  }
  return dayAt(fromMs)
}

function dayAt(fromMs: number): Day {
  const bounds = [new Date(fromMs).toISOString(), new Date(fromMs + DAY_MS).toISOString()] as const
  return { name: bounds[0].slice(0, 10), fromMs, toMs: fromMs + DAY_MS, bounds }
}
