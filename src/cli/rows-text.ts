import type { TextColumn, TextRow } from '../foundation/store/text-reader.ts'

/** PostgreSQL's type ids. */
const BOOLEAN = 16
const JSON_TYPES = new Set([114, 3802])
const NUMBERS = new Set([20, 21, 23, 26, 700, 701, 1700])
/** Types that JSON numbers represent exactly, if the value fits. */
const JSON_NUMBERS = new Set([20, 21, 23, 26, 700, 701])

/** An aligned table: numbers to the right, other values to the left. */
export function tableLines(columns: readonly TextColumn[], rows: readonly TextRow[]): string[] {
  const texts = rows.map((row) => columns.map((_, i) => shown(row[i] ?? null)))
  const widths = columns.map(({ name }, i) =>
    texts.reduce((widest, row) => Math.max(widest, row[i]?.length ?? 0), name.length),
  )
  const line = (cells: readonly string[], pad = ' ') =>
    cells
      .map((cell, i) => {
        const width = widths[i] ?? 0
        return NUMBERS.has(columns[i]?.typeId ?? 0) ? cell.padStart(width, pad) : cell.padEnd(width, pad)
      })
      .join(' | ')
      .trimEnd()
  const count = rows.length === 1 ? '(1 row)' : `(${rows.length} rows)`
  if (columns.length === 0) return [count]
  return [
    line(columns.map(({ name }) => name)),
    widths.map((width) => '-'.repeat(width)).join('-+-'),
    ...texts.map((row) => line(row)),
    count,
  ]
}

/** One JSON object. Decimals and times are strings, so that no digit is lost. */
export function jsonLine(columns: readonly TextColumn[], row: TextRow): string {
  const values = columns.map(({ name, typeId }, i) => [name, jsonValue(typeId, row[i] ?? null)])
  return JSON.stringify(Object.fromEntries(values))
}

function jsonValue(typeId: number, text: string | null): unknown {
  if (text === null) return null
  if (typeId === BOOLEAN) return text === 't'
  if (JSON_TYPES.has(typeId)) return JSON.parse(text)
  const number = Number(text)
  const isExact = Number.isInteger(number) ? Number.isSafeInteger(number) : Number.isFinite(number)
  return JSON_NUMBERS.has(typeId) && isExact ? number : text
}

/** Escapes tabs and line ends, which would break the table. */
function shown(text: string | null): string {
  return text === null
    ? ''
    : text.replaceAll('\\', '\\\\').replaceAll('\t', '\\t').replaceAll('\n', '\\n').replaceAll('\r', '\\r')
}
