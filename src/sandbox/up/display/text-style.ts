import { styleText } from 'node:util'
import { countText } from '../../../foundation/telemetry/plural.ts'

/** How lines are coloured. `plainStyle` is for output that is not a terminal, or with NO_COLOR. */
export interface Style {
  bold(text: string): string
  dim(text: string): string
  good(text: string): string
  warn(text: string): string
  bad(text: string): string
}

const unchanged = (text: string) => text

export const plainStyle: Style = {
  bold: unchanged,
  dim: unchanged,
  good: unchanged,
  warn: unchanged,
  bad: unchanged,
}

const paint = (format: Parameters<typeof styleText>[0]) => (text: string) =>
  styleText(format, text, { validateStream: false })

export const colourStyle: Style = {
  bold: paint('bold'),
  dim: paint('dim'),
  good: paint('green'),
  warn: paint('yellow'),
  bad: paint('red'),
}

/** Whole seconds as `hh:mm:ss`. */
export function clockText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  const two = (n: number) => String(n).padStart(2, '0')
  return `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`
}

/**
 * A readable duration: `812 ms`, `2.01 s`. May be negative, since the exchange's clock may be
 * ahead.
 */
export function msText(ms: number): string {
  return Math.abs(ms) < 10_000 ? `${countText(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}

const ESCAPE_CHARACTER = String.fromCharCode(27)
const COLOUR = new RegExp(`${ESCAPE_CHARACTER}\\[[\\d;]*m`, 'y')

/** Cuts a line to `columns` characters. Colours take no room, and are reset at the end. */
export function clip(line: string, columns: number): string {
  let shown = ''
  let width = 0
  for (let at = 0; at < line.length; ) {
    COLOUR.lastIndex = at
    const colour = COLOUR.exec(line)?.[0]
    if (colour !== undefined) {
      shown += colour
      at += colour.length
      continue
    }
    if (width === columns) return shown.includes(ESCAPE_CHARACTER) ? `${shown}${ESCAPE_CHARACTER}[0m` : shown
    const character = String.fromCodePoint(line.codePointAt(at) ?? 0)
    shown += character
    width += 1
    at += character.length
  }
  return shown
}
