import { styleText } from 'node:util'
import { countText } from '../../../foundation/telemetry/plural.ts'

/** How lines are coloured. `plainStyle` is for output that is not a terminal, or with NO_COLOR. */
export type Style = Readonly<Record<'bold' | 'dim' | 'good' | 'warn' | 'bad', (text: string) => string>>

const same = (text: string) => text
const paint = (format: Parameters<typeof styleText>[0]) => (text: string) =>
  styleText(format, text, { validateStream: false })

export const plainStyle: Style = { bold: same, dim: same, good: same, warn: same, bad: same }
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
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60]
  return parts.map((part) => String(part).padStart(2, '0')).join(':')
}

/** `812 ms`, `20.1 s`. May be negative, since the exchange's clock may be ahead. */
export function msText(ms: number): string {
  return Math.abs(ms) < 10_000 ? `${countText(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}

/** `812 kB`, `12.3 MB`, `1.2 GB`. */
export function bytesText(bytes: number): string {
  if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} kB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
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
