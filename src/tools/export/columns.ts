import type { SchemaElement } from 'hyparquet'
import {
  byEventType,
  declarationOf,
  type EventType,
  isTradeType,
  type TradeType,
} from '../../foundation/market/event.ts'

type Kind = 'time' | 'decimal' | 'id' | 'flag' | 'word' | 'number'

export interface Column {
  readonly name: string
  readonly kind: Kind
  readonly nullable?: boolean
}

/**
 * A value for Parquet. Times in microseconds and decimals in units of their eighth decimal are
 * exact.
 */
export type ParquetValue = bigint | boolean | string | number | null

const TIME = 'time'
const WORDS: readonly Column[] = [{ name: 'symbol', kind: 'word' }]
const RECEIPT: readonly Column[] = [{ name: 'ingestion_timestamp', kind: TIME }]

const OF_TRADES: readonly Column[] = [
  { name: 'trade_time', kind: TIME },
  { name: 'event_time', kind: TIME, nullable: true },
  ...WORDS,
  { name: 'epoch', kind: 'number' },
  { name: 'trade_id', kind: 'id' },
  { name: 'price', kind: 'decimal' },
  { name: 'quantity', kind: 'decimal' },
]

const QUOTES: readonly Column[] = [
  ...RECEIPT,
  ...WORDS,
  { name: 'update_id', kind: 'id' },
  { name: 'bid_price', kind: 'decimal' },
  { name: 'bid_quantity', kind: 'decimal' },
  { name: 'ask_price', kind: 'decimal' },
  { name: 'ask_quantity', kind: 'decimal' },
]

const TILES: readonly Column[] = [
  { name: 'first_trade_id', kind: 'id', nullable: true },
  { name: 'last_trade_id', kind: 'id', nullable: true },
]

/**
 * Exported columns of each type, in this order. Rows are sorted by the first column, then by id.
 */
export const COLUMNS = byEventType((type) => (isTradeType(type) ? tradeColumns(type) : QUOTES))

function tradeColumns(type: TradeType): readonly Column[] {
  const hasTiles = declarationOf(type).layout.some(([, role]) => role === 'firstTradeId')
  return [
    ...OF_TRADES,
    ...(hasTiles ? TILES : []),
    { name: 'is_buyer_maker', kind: 'flag' },
    ...RECEIPT,
    { name: 'source', kind: 'word' },
  ]
}

export const ID_COLUMN = byEventType((type) => (isTradeType(type) ? 'trade_id' : 'update_id'))

/** `$1` is the symbol, `$2` the start of the day, `$3` the start of the next day. */
export function selectOf(type: EventType): string {
  const columns = COLUMNS[type].map(({ name, kind }) =>
    kind === 'time' ? `(extract(epoch FROM ${name}) * 1000000)::bigint` : name,
  )
  const [table, which] = !isTradeType(type) ? ['book_ticker', ''] : ['trades', `AND event_type = '${type}' `]
  const time = COLUMNS[type][0]?.name
  return `SELECT ${columns.join(', ')} FROM ${table}
    WHERE symbol = $1 ${which}AND ${time} >= $2::timestamptz AND ${time} < $3::timestamptz ORDER BY ${time}, ${ID_COLUMN[type]}`
}

export function parquetSchema(type: EventType): SchemaElement[] {
  return [{ name: 'root', num_children: COLUMNS[type].length }, ...COLUMNS[type].map(elementOf)]
}

function elementOf({ name, kind, nullable }: Column): SchemaElement {
  const repetition_type = nullable === true ? 'OPTIONAL' : 'REQUIRED'
  switch (kind) {
    case 'time':
      return {
        name,
        repetition_type,
        type: 'INT64',
        converted_type: 'TIMESTAMP_MICROS',
        logical_type: { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' },
      }
    case 'decimal':
      // Twenty digits do not fit in eight bytes.
      return {
        name,
        repetition_type,
        type: 'FIXED_LEN_BYTE_ARRAY',
        type_length: 9,
        converted_type: 'DECIMAL',
        precision: 20,
        scale: 8,
        logical_type: { type: 'DECIMAL', precision: 20, scale: 8 },
      }
    case 'id':
      return { name, repetition_type, type: 'INT64' }
    case 'number':
      return { name, repetition_type, type: 'INT32' }
    case 'flag':
      return { name, repetition_type, type: 'BOOLEAN' }
    case 'word':
      return {
        name,
        repetition_type,
        type: 'BYTE_ARRAY',
        converted_type: 'UTF8',
        logical_type: { type: 'STRING' },
      }
  }
}

/** @param text as PostgreSQL formats it; a NUMERIC(20,8) has all eight decimals */
export function parquetValue(kind: Kind, text: string | null): ParquetValue {
  if (text === null) return null
  switch (kind) {
    case 'time':
    case 'id':
      return BigInt(text)
    case 'decimal':
      return BigInt(text.replace('.', ''))
    case 'number':
      return Number(text)
    case 'flag':
      return text === 't'
    case 'word':
      return text
  }
}

/** A value for CSV. Nothing needs quotes: symbols have only letters, digits and underscores. */
export function csvValue(kind: Kind, text: string | null): string {
  if (text === null) return ''
  if (kind === 'time') return isoTime(BigInt(text))
  return kind === 'flag' ? String(text === 't') : text
}

/** `2026-01-31T12:34:56.123456Z` */
export function isoTime(us: bigint): string {
  const ms = new Date(Number(us / 1000n)).toISOString().slice(0, -1)
  return `${ms}${String(us % 1000n).padStart(3, '0')}Z`
}
