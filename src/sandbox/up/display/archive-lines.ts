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

/** What is in files, and what is not yet. */
export function archiveLine({ status, totals }: ArchiveView): string {
  return `  archive: ${rowsText(totals)} · waiting ${waitingText(status)} · ${dayText(status)}`
}

/** Where there are no tables: the rows in files, by table. */
export function tableCountLines({ totals }: ArchiveView): string[] {
  const tables = Object.entries(totals.rows)
  if (tables.length === 0) return ['  no rows in files yet']
  const { bytes, perSecond } = totals
  const rows = sum(Object.values(totals.rows))
  return [
    ...tables.map(([table, count]) => `  ${table.padEnd(TABLE)}${countText(count).padStart(COUNT)}`),
    `  ${bytesText(bytes)} in files, ${(bytes / rows).toFixed(1)} bytes a row · ${countText(perSecond)} rows/s`,
  ]
}

/** The same as parts of one line. */
export function archivedTexts({ status, totals }: ArchiveView): string[] {
  return [`archived ${rowsText(totals)}`, `waiting ${waitingText(status)}`]
}

/** At the end everything is read; the archive writes what it holds when it stops. */
export function archiveSummary(view: ArchiveView): string[] {
  const { rows, waiting } = view.totals
  const last = waiting === 0 ? '' : `, and ${plural(waiting, 'row')} at the stop`
  const tables = Object.keys(rows).length === 0 ? [] : tableCountLines(view)
  return ['', `Archived ${rowsText(view.totals)}${last}:`, ...tables, `The archive is in ${view.where}.`]
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
