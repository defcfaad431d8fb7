import { countText, plural } from '../../../foundation/telemetry/plural.ts'
import type { ArchiveStatus } from '../../../foundation/telemetry/status.ts'
import { totalLag } from '../../../foundation/telemetry/status.ts'
import { type Archived, sum } from './run-totals.ts'
import { bytesText, msText } from './text-style.ts'

const TABLE = 14
const COUNT = 16

export interface ArchiveView {
  /** Null while it does not answer. */
  readonly status: ArchiveStatus | null
  readonly totals: Archived
  /** Its folder or store. */
  readonly where: string
}

/** Rows in files, and messages that are not in a file yet. */
export function archiveLine({ status, totals }: ArchiveView): string {
  return `  archive: ${rowsText(totals)} · waiting ${waitingText(status)} · ${dayText(status)}`
}

/** Where there are no tables: the rows in files, by table, and how large and fast they are. */
export function tableCountLines({ totals }: ArchiveView): string[] {
  const { rows, bytes, perSecond } = totals
  const count = sum(Object.values(rows))
  if (count === 0) return ['  no rows in files yet']
  const size = `${bytesText(bytes)} in files, ${(bytes / count).toFixed(1)} bytes a row`
  return [...countLines(rows), `  ${size} · ${countText(perSecond)} rows/s`]
}

function countLines(rows: Archived['rows']): string[] {
  const lines = Object.entries(rows)
  return lines.map(([table, count]) => `  ${table.padEnd(TABLE)}${countText(count).padStart(COUNT)}`)
}

/** The same as parts of one line. */
export function archivedTexts({ status, totals }: ArchiveView): string[] {
  return [`archived ${rowsText(totals)}`, `waiting ${waitingText(status)}`]
}

/** At the end everything is read; the archive writes what it holds when it stops. */
export function archiveSummary(view: ArchiveView): string[] {
  const { rows, bytes, waiting } = view.totals
  if (sum(Object.values(rows)) + waiting === 0) return ['', 'Archived no rows.']
  const last = waiting === 0 ? '' : `, and ${plural(waiting, 'row')} at the stop`
  const what = `Archived ${rowsText(view.totals)} in ${bytesText(bytes)}${last}:`
  return [
    ...['', what, ...countLines(rows), `The archive is in ${view.where}. Query it with:`],
    `  export ARCHIVE_URL=${inShell(view.where)}`,
    '  bin/tapeline sql --archive "SELECT count(*) FROM raw_trades"',
  ]
}

/** Messages that are not archived, and the age of the oldest of those that were read. */
function waitingText(status: ArchiveStatus | null): string {
  const lag = status === null || status.partitions.length === 0 ? null : totalLag(status.partitions)
  if (status === null || lag === null) return '–'
  return lag === 0 ? '0' : `${countText(lag)} for ${msText(status.oldestUncommittedMs)}`
}

function dayText(status: ArchiveStatus | null): string {
  return status === null || status.newestDay === null ? 'no day published' : `newest day ${status.newestDay}`
}

function rowsText({ rows }: Archived): string {
  return plural(sum(Object.values(rows)), 'row')
}

/** The text as a word of a shell. */
function inShell(text: string): string {
  return /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}
