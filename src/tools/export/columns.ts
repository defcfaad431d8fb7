import { ARCHIVE_TABLES } from '../../foundation/archive/tables.ts'
import { byEventType, isTradeType } from '../../foundation/market/event.ts'

/** Exported columns of each type, in this order. Rows are sorted by the first column, then by id. */
export const COLUMNS = byEventType((type) => ARCHIVE_TABLES[type].columns)

export const ID_COLUMN = byEventType((type) => (isTradeType(type) ? 'trade_id' : 'update_id'))

export const TIME_COLUMN = byEventType((type) => (isTradeType(type) ? 'trade_time' : 'ingestion_timestamp'))

/** `2026-01-31T12:34:56.123456Z` */
export function isoTime(us: bigint): string {
  const ms = new Date(Number(us / 1000n)).toISOString().slice(0, -1)
  return `${ms}${String(us % 1000n).padStart(3, '0')}Z`
}
