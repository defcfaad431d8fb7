import { TapelineError } from '../../foundation/runtime/errors.ts'

const DAY_MS = 86_400_000

/** A day in UTC. */
export interface Day {
  /** `2026-01-31` */
  readonly name: string
  /** Milliseconds since the Unix epoch; not included. */
  readonly toMs: number
  /** Its first moment, and that behind its last. */
  readonly bounds: readonly [from: string, to: string]
}

/**
 * @param text `2026-01-31`, `today` or `yesterday`
 * @throws TapelineError `INPUT`
 */
export function parseDay(text: string, nowMs: number): Day {
  const ago = { today: 0, yesterday: 1 }[text]
  const fromMs =
    ago === undefined
      ? Date.parse(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00:00Z` : '')
      : (Math.floor(nowMs / DAY_MS) - ago) * DAY_MS
  const from = Number.isNaN(fromMs) ? '' : new Date(fromMs).toISOString()
  // 30 February is taken for 2 March.
  if (from === '' || (ago === undefined && !from.startsWith(text))) {
    throw new TapelineError('INPUT', `--day ${text}: no such day`, {
      fix: 'Give a day in UTC: 2026-01-31, today or yesterday.',
    })
  }
  return {
    name: from.slice(0, 10),
    toMs: fromMs + DAY_MS,
    bounds: [from, new Date(fromMs + DAY_MS).toISOString()],
  }
}
