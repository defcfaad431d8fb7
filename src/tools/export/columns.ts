import { ARCHIVE_TABLES } from '../../foundation/archive/tables.ts'
import { byTickType, isTradeType } from '../../foundation/market/event.ts'

/** Exported columns of each type, in this order. Rows are sorted by the first column, then by id. */
export const COLUMNS = byTickType((type) => ARCHIVE_TABLES[type].columns)

export const ID_COLUMN = byTickType((type) => (isTradeType(type) ? 'trade_id' : 'update_id'))

export const TIME_COLUMN = byTickType((type) => (isTradeType(type) ? 'trade_time' : 'ingestion_timestamp'))
