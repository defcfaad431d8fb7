import { byTickType, declarationOf, isTradeType, type TickType } from '../market/event.ts'

/*
 * The tables of the archive. Each event type has one; its columns are those of `export`
 * (docs/export.md). A segment has one more column, the offset of the row's message.
 */

/** How a column's values are stored: the type in DuckDB, and the bytes of a value in its vectors. */
export const COLUMN_KINDS = {
  time: { sql: 'TIMESTAMPTZ', bytes: 8 },
  id: { sql: 'BIGINT', bytes: 8 },
  number: { sql: 'INTEGER', bytes: 4 },
  decimal: { sql: 'DECIMAL(20,8)', bytes: 16 },
  flag: { sql: 'BOOLEAN', bytes: 1 },
  word: { sql: 'VARCHAR', bytes: 16 },
} as const

export type ColumnKind = keyof typeof COLUMN_KINDS

export interface ArchiveColumn {
  readonly name: string
  readonly kind: ColumnKind
  readonly isNullable?: true
}

export interface ArchiveTable {
  /** Also the name of its folder. */
  readonly name: string
  /** The first is the time by which rows belong to a UTC day. */
  readonly columns: readonly ArchiveColumn[]
  /** Columns that identify a row, as in the unique indexes of the database; the sort order of a day. */
  readonly identity: readonly string[]
  /** Columns that the exchange gives: two rows of one identity that differ in them contradict each other. */
  readonly content: readonly string[]
}

/** The column of a segment that names the offset of the row's message. */
export const OFFSET_COLUMN: ArchiveColumn = { name: '_offset', kind: 'id' }

const QUOTE_COLUMNS: readonly ArchiveColumn[] = [
  { name: 'ingestion_timestamp', kind: 'time' },
  { name: 'symbol', kind: 'word' },
  { name: 'update_id', kind: 'id' },
  { name: 'bid_price', kind: 'decimal' },
  { name: 'bid_quantity', kind: 'decimal' },
  { name: 'ask_price', kind: 'decimal' },
  { name: 'ask_quantity', kind: 'decimal' },
]

const NAMES = {
  trade: 'raw_trades',
  aggTrade: 'agg_trades',
  blockTrade: 'block_trades',
  bookTicker: 'book_ticker',
} as const satisfies Record<TickType, string>

export const ARCHIVE_TABLES: Readonly<Record<TickType, ArchiveTable>> = byTickType((type) => ({
  name: NAMES[type],
  columns: isTradeType(type) ? tradeColumns(type) : QUOTE_COLUMNS,
  identity: isTradeType(type)
    ? ['symbol', 'trade_time', 'trade_id']
    : ['symbol', 'ingestion_timestamp', 'update_id'],
  content: contentOf(type),
}))

function contentOf(type: TickType): readonly string[] {
  if (!isTradeType(type)) return ['bid_price', 'bid_quantity', 'ask_price', 'ask_quantity']
  const names = tradeColumns(type).map(({ name }) => name)
  const all = ['price', 'quantity', 'first_trade_id', 'last_trade_id', 'is_buyer_maker']
  return all.filter((name) => names.includes(name))
}

function tradeColumns(type: TickType): readonly ArchiveColumn[] {
  const hasTiles = declarationOf(type).layout.some(([, role]) => role === 'firstTradeId')
  const tiles: readonly ArchiveColumn[] = [
    { name: 'first_trade_id', kind: 'id', isNullable: true },
    { name: 'last_trade_id', kind: 'id', isNullable: true },
  ]
  return [
    { name: 'trade_time', kind: 'time' },
    { name: 'event_time', kind: 'time', isNullable: true },
    { name: 'symbol', kind: 'word' },
    { name: 'epoch', kind: 'number' },
    { name: 'trade_id', kind: 'id' },
    { name: 'price', kind: 'decimal' },
    { name: 'quantity', kind: 'decimal' },
    ...(hasTiles ? tiles : []),
    { name: 'is_buyer_maker', kind: 'flag' },
    { name: 'ingestion_timestamp', kind: 'time' },
    { name: 'source', kind: 'word' },
  ]
}

/** The tables that are published as days, by name. */
export const DAY_TABLES: ReadonlyMap<string, ArchiveTable> = new Map(
  Object.values(ARCHIVE_TABLES).map((table) => [table.name, table]),
)

/**
 * Tables of JSON texts, for messages that are rare: revisions of ledger rows, announcements of what is
 * recorded, and messages that could not be archived as events.
 */
export const TEXT_TABLES = {
  gaps: textTable('gaps'),
  recordings: textTable('recordings'),
  deadLetters: textTable('dead_letters'),
} as const

function textTable(name: string): ArchiveTable {
  return {
    name,
    columns: [
      { name: 'time', kind: 'time' },
      { name: 'json', kind: 'word' },
    ],
    identity: ['time', OFFSET_COLUMN.name],
    content: [],
  }
}
