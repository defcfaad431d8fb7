/*
 * Values in the text format of COPY: columns parted by tabs, rows ended by a newline, `\N` for null. Nothing is escaped,
 * since symbols hold letters, digits and underscores only, and all else is numbers.
 */

export const NULL = '\\N'

const MS_PER_S = 1000
const US_PER_S = 1_000_000

let second = Number.NaN
let secondText = ''

/** A time for `timestamptz`. Most are of the second of the one before. */
export function timeText(ms: number): string {
  const whole = Math.floor(ms / MS_PER_S)
  return `${textOfSecond(whole)}.${String(ms - whole * MS_PER_S).padStart(3, '0')}Z`
}

export function timeTextUs(us: number): string {
  const whole = Math.floor(us / US_PER_S)
  return `${textOfSecond(whole)}.${String(us - whole * US_PER_S).padStart(6, '0')}Z`
}

/** `2026-01-31T12:34:56` */
function textOfSecond(whole: number): string {
  if (whole !== second) {
    second = whole
    secondText = new Date(whole * MS_PER_S).toISOString().slice(0, -5)
  }
  return secondText
}
