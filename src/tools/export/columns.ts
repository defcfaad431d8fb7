import { ARCHIVE_TABLES } from '../../foundation/archive/tables.ts'
import { byEventType } from '../../foundation/market/event.ts'

/** Exported columns of each type, in this order. Rows are sorted by the first column, then by id. */
export const COLUMNS = byEventType((type) => ARCHIVE_TABLES[type].columns)

export const ID_COLUMN = byEventType((type) => ARCHIVE_TABLES[type].id ?? '')

export const TIME_COLUMN = byEventType((type) => COLUMNS[type][0]?.name ?? '')

/** The columns after time and id by which rows are sorted: those of depth, whose events have several rows. */
export const LATER_COLUMNS = byEventType((type) => {
  const { identity, within } = ARCHIVE_TABLES[type]
  if (within.length === 0) return []
  const first = ['symbol', TIME_COLUMN[type], ID_COLUMN[type]]
  return [...identity.filter((name) => !first.includes(name)), ...within]
})
