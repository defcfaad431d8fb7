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

/** Two lines: what is in files, and what is not yet. */
export function archiveLines({ status, totals }: ArchiveView): string[] {
  const { rows, bytes, perSecond } = totals
  const count = sum(Object.values(rows))
  return [
    `  archive   ${plural(count, 'row')} in files, ${bytesText(bytes)}${perRow(count, bytes)} · ${countText(perSecond)} rows/s`,
    `            waiting ${waitingText(status)} · ${dayText(status)}`,
  ]
}

/** Where there are no tables: the rows in files, by table. */
export function tableCountLines({ totals }: ArchiveView): string[] {
  const tables = Object.entries(totals.rows)
  if (tables.length === 0) return ['  no rows in files yet']
  return tables.map(([table, count]) => `  ${table.padEnd(TABLE)}${countText(count).padStart(COUNT)}`)
}

/** The same as parts of one line. */
export function archivedTexts({ status, totals }: ArchiveView): string[] {
  return [`archived ${plural(sum(Object.values(totals.rows)), 'row')}`, `waiting ${waitingText(status)}`]
}

/** At the end everything is read; the archive writes what it holds when it stops. */
export function archiveSummary(view: ArchiveView): string[] {
  const { rows, waiting } = view.totals
  const last = waiting === 0 ? '' : `, and ${plural(waiting, 'row')} at the stop`
  const tables = Object.keys(rows).length === 0 ? [] : tableCountLines(view)
  return [
    '',
    `Archived ${plural(sum(Object.values(rows)), 'row')}${last}:`,
    ...tables,
    `The archive is in ${view.where}.`,
  ]
}

/** Messages that are not archived, and the age of the oldest of those that were read. */
function waitingText(status: ArchiveStatus | null): string {
  const lag = status === null || status.partitions.length === 0 ? null : totalLag(status.partitions)
  if (status === null || lag === null) return '–'
  return lag === 0 ? '0' : `${countText(lag)}, the oldest for ${msText(status.oldestUncommittedMs)}`
}

function dayText(status: ArchiveStatus | null): string {
  return status === null || status.newestDay === null
    ? 'no day published'
    : `published to ${status.newestDay}`
}

function perRow(rows: number, bytes: number): string {
  return rows === 0 ? '' : ` (${(bytes / rows).toFixed(1)} a row)`
}
