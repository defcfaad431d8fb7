import { InvalidArgumentError } from 'commander'
import { isSymbol } from '../foundation/market/fields.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { parseUtc } from '../tools/verify/scope.ts'

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
/** The longest time that a timer can wait: 24 days. */
export const LONGEST_MS = 2 ** 31 - 1

/** Parses `30s` to 30000. A number needs a unit: ms, s, m or h. */
export function parseDuration(text: string): number {
  const [, count, unit = ''] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text.trim()) ?? []
  const ms = Number(count) * (UNIT_MS[unit] ?? 0)
  if (ms > 0 && ms <= LONGEST_MS) return Math.ceil(ms)
  throw new InvalidArgumentError('Expected a duration of at most 24 days, like 500ms, 30s, 10m or 2h.')
}

/** Returns a parser of a whole number from 1 to `max`. */
export function countUpTo(max: number): (text: string) => number {
  return (text) => {
    if (/^[1-9]\d*$/.test(text) && Number(text) <= max) return Number(text)
    throw new InvalidArgumentError(`Expected a number from 1 to ${max}.`)
  }
}

/** Returns symbols in upper case, without repeats. @throws TapelineError `INPUT` naming the option */
export function parseSymbols(given: readonly string[], option = ''): string[] {
  const symbols = given.flatMap((text) => text.split(',')).map((text) => text.trim().toUpperCase())
  const odd = symbols.find((symbol) => !isSymbol(symbol))
  if (odd !== undefined)
    throw new TapelineError('INPUT', `${option}${odd}: not a symbol`, { fix: 'Use the form BTCUSDT.' })
  return [...new Set(symbols)]
}

/**
 * Parses a UTC time with up to six decimals of a second as microseconds; a day means its start.
 *
 * @throws TapelineError `INPUT` naming the option
 */
export function parseMicroseconds(option: string, text: string): number {
  const [, upToMs = text, beyond = ''] = /^(.+\.\d{3})(\d{1,3})Z?$/.exec(text) ?? []
  return parseUtc(option, upToMs, 'from') * 1000 + Number(beyond.padEnd(3, '0'))
}

export interface TimeFlags {
  readonly from?: string
  readonly to?: string
}

/** @throws TapelineError `INPUT` naming the wrong option */
export function parseTimes({ from, to }: TimeFlags): { fromMs: number | null; toMs: number | null } {
  return {
    fromMs: from === undefined ? null : parseUtc('--from', from, 'from'),
    toMs: to === undefined ? null : parseUtc('--to', to, 'to'),
  }
}
