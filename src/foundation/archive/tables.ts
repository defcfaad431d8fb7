import {
  byEventType,
  declarationOf,
  type EventDeclaration,
  type EventType,
  isTradeType,
  type TradeType,
} from '../market/event.ts'

/*
 * The tables of the archive. Each event type has one; its columns are those of `export`
 * (docs/export.md). A segment has one more column, the offset of the row's message.
 *
 * An event of depth has a row per level. If it has no levels, one row without a side keeps its ids.
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
  /** Columns that identify an event, as in the unique indexes of the database; the sort order of a day. */
  readonly identity: readonly string[]
  /** Columns that order the rows of one event; none if it has one row. */
  readonly within: readonly string[]
  /** Columns that the exchange gives: two events of one identity that differ in them contradict each other. */
  readonly content: readonly string[]
  /** The column with the id; null in tables of texts. */
  readonly id: string | null
  /** The column with the first id that an event covers, if it covers several. */
  readonly firstId: string | null
  readonly ids: EventDeclaration['ids']
}

/** The column of a segment that names the offset of the row's message. */
export const OFFSET_COLUMN: ArchiveColumn = { name: '_offset', kind: 'id' }

/** The columns by which the rows of a segment are sorted: those of one event stay together. */
export function segmentOrderOf({ identity, within }: ArchiveTable): string {
  return (within.length === 0 ? identity : [...identity, OFFSET_COLUMN.name, ...within]).join()
}

const QUOTE_COLUMNS: readonly ArchiveColumn[] = [
  { name: 'ingestion_timestamp', kind: 'time' },
  { name: 'symbol', kind: 'word' },
  { name: 'update_id', kind: 'id' },
  { name: 'bid_price', kind: 'decimal' },
  { name: 'bid_quantity', kind: 'decimal' },
  { name: 'ask_price', kind: 'decimal' },
  { name: 'ask_quantity', kind: 'decimal' },
]

const LEVEL_COLUMNS: readonly ArchiveColumn[] = [
  { name: 'side', kind: 'word', isNullable: true },
  // From 1 on, in the order of the message.
  { name: 'level', kind: 'number', isNullable: true },
  { name: 'price', kind: 'decimal', isNullable: true },
  { name: 'quantity', kind: 'decimal', isNullable: true },
]

const DEPTH_COLUMNS: readonly ArchiveColumn[] = [
  { name: 'event_time', kind: 'time' },
  { name: 'symbol', kind: 'word' },
  { name: 'epoch', kind: 'number' },
  { name: 'first_update_id', kind: 'id' },
  { name: 'last_update_id', kind: 'id' },
  ...LEVEL_COLUMNS,
  { name: 'ingestion_timestamp', kind: 'time' },
]

const SNAPSHOT_COLUMNS: readonly ArchiveColumn[] = [
  { name: 'ingestion_timestamp', kind: 'time' },
  { name: 'symbol', kind: 'word' },
  { name: 'epoch', kind: 'number' },
  { name: 'last_update_id', kind: 'id' },
  // Levels per side that were requested; `limit` is a word of SQL.
  { name: 'level_limit', kind: 'number' },
  ...LEVEL_COLUMNS,
]

/** What a table has besides its columns. */
type Keys = Pick<ArchiveTable, 'identity' | 'within' | 'content' | 'id' | 'firstId'>

const TRADE_KEYS: Keys = {
  identity: ['symbol', 'trade_time', 'trade_id'],
  within: [],
  content: ['price', 'quantity', 'first_trade_id', 'last_trade_id', 'is_buyer_maker'],
  id: 'trade_id',
  firstId: null,
}

const LEVELS = { within: ['side', 'level'], content: ['side', 'level', 'price', 'quantity'] }

const TABLES: Readonly<Record<EventType, Keys & Pick<ArchiveTable, 'name' | 'columns'>>> = {
  trade: { name: 'raw_trades', columns: tradeColumns('trade'), ...TRADE_KEYS },
  aggTrade: { name: 'agg_trades', columns: tradeColumns('aggTrade'), ...TRADE_KEYS },
  blockTrade: { name: 'block_trades', columns: tradeColumns('blockTrade'), ...TRADE_KEYS },
  bookTicker: {
    name: 'book_ticker',
    columns: QUOTE_COLUMNS,
    identity: ['symbol', 'ingestion_timestamp', 'update_id'],
    within: [],
    content: ['bid_price', 'bid_quantity', 'ask_price', 'ask_quantity'],
    id: 'update_id',
    firstId: null,
  },
  depth: {
    name: 'depth',
    columns: DEPTH_COLUMNS,
    identity: ['symbol', 'event_time', 'last_update_id', 'first_update_id', 'epoch'],
    ...LEVELS,
    id: 'last_update_id',
    firstId: 'first_update_id',
  },
  depthSnapshot: {
    name: 'depth_snapshots',
    columns: SNAPSHOT_COLUMNS,
    identity: ['symbol', 'ingestion_timestamp', 'last_update_id', 'epoch'],
    ...LEVELS,
    content: ['level_limit', ...LEVELS.content],
    id: 'last_update_id',
    firstId: null,
  },
}

export const ARCHIVE_TABLES: Readonly<Record<EventType, ArchiveTable>> = byEventType((type) => {
  const { content, ...table } = TABLES[type]
  const names = table.columns.map(({ name }) => name)
  return {
    ...table,
    content: content.filter((name) => names.includes(name)),
    ids: declarationOf(type).ids,
  }
})

function tradeColumns(type: EventType): readonly ArchiveColumn[] {
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

/** Where the rows of other types than trades are. Derived books are not archived. */
const SOURCES: Readonly<Record<Exclude<EventType, TradeType>, string>> = {
  bookTicker: 'book_ticker WHERE true',
  depth: 'depth_levels WHERE true',
  depthSnapshot: `depth_snapshot_levels JOIN depth_snapshots USING (symbol, epoch, last_update_id, kind, ingestion_timestamp)
    WHERE kind = 'rest'`,
}

/**
 * Returns SQL for the rows of a type in the database, with the columns of the archive's table: what follows
 * FROM, with a condition to which others can be added. Order books have a row per level.
 */
export function storedRows(type: EventType): string {
  return isTradeType(type) ? `trades WHERE event_type = '${type}'` : SOURCES[type]
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
    ...{ within: [], content: [], id: null, firstId: null, ids: 'none' },
  }
}
