import type { IdRange } from '../foundation/market/id-ranges.ts'
import { countText, plural } from '../foundation/telemetry/plural.ts'
import { Progress } from '../foundation/telemetry/progress.ts'
import type { Checksum, DailyFile } from '../tools/history/daily-file.ts'
import type { DailyRows, Defect } from '../tools/history/daily-rows.ts'

export const FILES_ARGUMENT = [
  '<files...>',
  'like BTCUSDT-trades-2026-01-31.zip or BTCUSDT-aggTrades-2026-01-31.zip, or folders with such files',
] as const

const CHECKSUMS: Readonly<Record<Checksum, string>> = {
  matches: 'its checksum matches',
  differs: 'ITS CHECKSUM DIFFERS',
  absent: 'without a .CHECKSUM',
}

/** The first line about a file. */
export function headLine(
  { name }: DailyFile,
  { rows, unit }: Pick<DailyRows, 'rows' | 'unit'>,
  checksum: Checksum,
): string {
  const times = unit === null ? '' : `, times in ${unit}s`
  return `${name}: ${plural(rows, 'row')}, ${CHECKSUMS[checksum]}${times}`
}

/** Prints the first of a list, if there are any. */
export function printList<One>(
  what: string,
  all: readonly One[],
  text: (one: One) => string,
  limit: number,
  count = all.length,
): void {
  if (all.length === 0) return
  console.log(`  ${what}: ${countText(count)}`)
  for (const one of all.slice(0, limit)) console.log(`    ${text(one)}`)
  if (all.length > limit)
    console.log(`    and ${countText(all.length - limit)} more: --limit, or --json for all`)
}

/** Prints first what concerns the whole file: a damaged one may have thousands of wrong lines. */
export function printDefects({ defects, defectCount }: Defects, limit: number): void {
  const wholeFirst = defects.toSorted((one, other) => Number(one.line !== null) - Number(other.line !== null))
  printList('wrong in the file', wholeFirst, defectText, limit, defectCount)
}

interface Defects {
  readonly defects: readonly Defect[]
  readonly defectCount: number
}

function defectText({ line, what }: Defect): string {
  return line === null ? what : `line ${line}: ${what}`
}

export function rangeText({ from, to }: IdRange): string {
  return from === to ? `id ${from}` : `ids ${from} to ${to}`
}

/** Shows how much of all files is done. */
export class FileProgress {
  readonly #progress = new Progress()
  readonly #files: readonly DailyFile[]
  /** Each file counts the same, and so does each of its steps. */
  readonly #steps: readonly string[]
  readonly #startedMs = performance.now()
  #rows = 0
  #step = ''
  #rowsBefore = 0

  constructor(files: readonly DailyFile[], steps: readonly string[]) {
    this.#files = files
    this.#steps = steps
  }

  show(file: DailyFile, step: string, { rows, share }: DailyRows): void {
    const place = this.#files.indexOf(file)
    const key = `${place} ${step}`
    if (key !== this.#step) {
      this.#rowsBefore += this.#rows
      this.#step = key
    }
    this.#rows = rows
    const done = (place + (this.#steps.indexOf(step) + share) / this.#steps.length) / this.#files.length
    this.#progress.show(done, () => {
      const seconds = Math.max(0.001, (performance.now() - this.#startedMs) / 1000)
      const rate = countText((this.#rowsBefore + rows) / seconds)
      return `${step} ${file.name}: ${countText(rows)} rows, ${rate} rows/s`
    })
  }

  waiting(text: string): void {
    this.#progress.show(null, () => text)
  }

  clear(): void {
    this.#progress.clear()
  }
}
