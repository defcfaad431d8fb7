/*
 * What the exchange sends, one declaration per event type. Scanner, JSON path, schemas, headers, REST rows and
 * backfilled messages derive from it. CONTRIBUTING.md 3.10: how to add an event type.
 */

/** Fields in order, each with its name, its role, and what to say about it if that is not the role's text. */
export type Layout = ReadonlyArray<readonly [name: string, role: Role, about: string | undefined]>

/**
 * What a field means. `kind` decides which values are valid (`fields.ts`); `about` is for the documents.
 *
 * - `tiles`: trade ids, or −1 in an aggTrade that the exchange has invalidated.
 * - `unused`: a flag that is not stored.
 */
export const ROLES = {
  type: { kind: 'type', about: 'Event type.' },
  eventTime: { kind: 'time', about: 'Event time, {unit}s since the Unix epoch.' },
  tradeTime: { kind: 'time', about: 'Trade time, {unit}s since the Unix epoch.' },
  symbol: { kind: 'symbol', about: 'Symbol.' },
  /** Trade id, aggregate trade id or update id. */
  id: { kind: 'id', about: 'Id.' },
  price: { kind: 'decimal', about: 'Price.' },
  quantity: { kind: 'decimal', about: 'Quantity.' },
  askPrice: { kind: 'decimal', about: 'Best ask price.' },
  askQuantity: { kind: 'decimal', about: 'Best ask quantity.' },
  firstTradeId: { kind: 'tiles', about: 'First trade id.' },
  lastTradeId: { kind: 'tiles', about: 'Last trade id, not below the first.' },
  isBuyerMaker: { kind: 'flag', about: 'Whether the buyer was the maker: the taker sold.' },
  unused: { kind: 'unused', about: '' },
} as const

export type Role = keyof typeof ROLES

/** @param about by the names of the fields */
function fieldsOf(
  roles: Readonly<Record<string, Role>>,
  about: Readonly<Record<string, string>> = {},
): Layout {
  return Object.entries(roles).map(([name, role]) => [name, role, about[name]])
}

/** `f` and `l` of an aggTrade that the exchange has invalidated. */
export const INVALIDATED = -1

/** How REST returns past events, at most 1000 per answer, from an id on. */
export interface RestDeclaration {
  /** Below `/api/v3/`. */
  readonly path: string
  /** The weight of a request, out of 6,000 per minute and IP. */
  readonly weight: number
  /** Whether some exchanges require an API key. */
  readonly isKeyed: boolean
  /** Whether a request without `fromId` returns the latest events; otherwise `fromId` is required. */
  readonly hasLatest: boolean
  readonly row: Layout
}

export interface EventDeclaration {
  /** For schemas and documents. */
  readonly about: string
  /** Whether it is recorded unless `STREAM_TYPES` says otherwise. */
  readonly isDefault: boolean
  /** The type whose rate stands in while this one's is unknown; null if none is as frequent. */
  readonly similar: string | null
  /** Whether the ids of a newly listed symbol are known to begin at 0. */
  readonly beginsAtZero: boolean
  /**
   * - `trades`: contiguous ids, in the table `trades`; what is missing is fetched over REST.
   * - `bookTicker`: increasing ids with holes, in the table `book_ticker`; outages are windows of time.
   */
  readonly topic: 'trades' | 'bookTicker'
  /** The exchange's own order; no spaces, no escapes. */
  readonly layout: Layout
  readonly rest: RestDeclaration | null
}

const HEAD = { e: 'type', E: 'eventTime', s: 'symbol' } as const
const AMOUNT = { p: 'price', q: 'quantity' } as const
const TAKER = { T: 'tradeTime', m: 'isBuyerMaker' } as const
const TRADE = { t: 'id', ...AMOUNT, ...TAKER } as const
const TILES = { f: 'firstTradeId', l: 'lastTradeId' } as const
const AGGREGATE = { a: 'id', ...AMOUNT, ...TILES, ...TAKER, M: 'unused' } as const
const REST_AMOUNT = { price: 'price', qty: 'quantity' } as const
const REST_TRADE = { id: 'id', ...REST_AMOUNT, time: 'tradeTime', isBuyerMaker: 'isBuyerMaker' } as const

export const EVENT_DECLARATIONS = {
  trade: {
    about: 'A trade: the exchange’s object, byte for byte, and the time of its receipt.',
    isDefault: true,
    similar: 'aggTrade',
    beginsAtZero: true,
    topic: 'trades',
    layout: fieldsOf({ ...HEAD, ...TRADE, M: 'unused' }, { t: 'Trade id.' }),
    rest: {
      path: 'historicalTrades',
      weight: 25,
      isKeyed: true,
      hasLatest: true,
      row: fieldsOf({ ...REST_TRADE, isBestMatch: 'unused' }),
    },
  },
  aggTrade: {
    about:
      'An aggregate trade, in the same form. It covers the trades f to l, and its quantity is their sum.',
    isDefault: true,
    similar: 'trade',
    beginsAtZero: true,
    topic: 'trades',
    layout: fieldsOf({ ...HEAD, ...AGGREGATE }, { a: 'Aggregate trade id.' }),
    rest: {
      path: 'aggTrades',
      weight: 4,
      isKeyed: false,
      hasLatest: true,
      row: fieldsOf(AGGREGATE),
    },
  },
  blockTrade: {
    about: 'A trade that two parties agreed on outside the order book, in the same form.',
    isDefault: false,
    similar: null,
    beginsAtZero: false,
    topic: 'trades',
    layout: fieldsOf({ ...HEAD, ...TRADE }, { t: 'Block trade id.' }),
    rest: {
      path: 'historicalBlockTrades',
      weight: 25,
      isKeyed: true,
      hasLatest: false,
      row: fieldsOf(REST_TRADE),
    },
  },
  bookTicker: {
    about: 'The best bid and ask, in the same form. Its only time is that of its receipt.',
    isDefault: true,
    similar: 'trade',
    beginsAtZero: false,
    topic: 'bookTicker',
    layout: fieldsOf(
      { u: 'id', s: 'symbol', b: 'price', B: 'quantity', a: 'askPrice', A: 'askQuantity' },
      { u: 'Update id; increasing, not contiguous.', b: 'Best bid price.', B: 'Best bid quantity.' },
    ),
    rest: null,
  },
} as const satisfies Record<string, EventDeclaration>

/** The stream types that Tapeline records; the last part of a stream name (`btcusdt@aggTrade`). */
export type EventType = keyof typeof EVENT_DECLARATIONS

/** The types with contiguous ids, which are rows of `trades` and which REST has. */
export type TradeType = {
  [Type in EventType]: (typeof EVENT_DECLARATIONS)[Type]['topic'] extends 'trades' ? Type : never
}[EventType]

export const EVENT_TYPES = Object.keys(EVENT_DECLARATIONS) as [EventType, ...EventType[]]

export const DEFAULT_EVENT_TYPES = EVENT_TYPES.filter((type) => EVENT_DECLARATIONS[type].isDefault)

export const TRADE_TYPES = EVENT_TYPES.filter(isTradeType) as [TradeType, ...TradeType[]]

export function declarationOf(type: EventType): EventDeclaration {
  return EVENT_DECLARATIONS[type]
}

export function isTradeType(type: EventType): type is TradeType {
  return EVENT_DECLARATIONS[type].topic === 'trades'
}

export function byEventType<Value>(value: (type: EventType) => Value): Record<EventType, Value> {
  return Object.fromEntries(EVENT_TYPES.map((type) => [type, value(type)])) as Record<EventType, Value>
}

/** Returns a record with a value for each type with contiguous ids. */
export function byTradeType<Value>(value: (type: TradeType) => Value): Record<TradeType, Value> {
  return Object.fromEntries(TRADE_TYPES.map((type) => [type, value(type)])) as Record<TradeType, Value>
}

/** Returns the type whose rate stands in for this one's; null if none is as frequent. */
export function similarTo(type: EventType): EventType | null {
  return EVENT_DECLARATIONS[type].similar
}

/** Whether a newly listed symbol is known to begin with the id 0. */
export function beginsAtZero(type: EventType): type is TradeType {
  return isTradeType(type) && EVENT_DECLARATIONS[type].beginsAtZero
}

export function idNameOf(type: EventType): string {
  return declarationOf(type).layout.find(([, role]) => role === 'id')?.[0] ?? ''
}

export function restOf(type: TradeType): RestDeclaration {
  return EVENT_DECLARATIONS[type].rest
}

/** `trade` → `btcusdt@trade`. Stream names are lower-case; the exchange sends nothing for others. */
export function streamName(symbol: string, type: EventType): string {
  return `${symbol.toLowerCase()}@${type}`
}

/** Returns the event type of a stream name; null for other streams. */
export function eventTypeOf(stream: string): EventType | null {
  const type = stream.slice(stream.indexOf('@') + 1)
  return Object.hasOwn(EVENT_DECLARATIONS, type) ? (type as EventType) : null
}

/** Dead-letter reason of an event whose id another event has, as some of the exchange's aggregates do. */
export const SECOND_UNDER_ID = 'another event is stored under its id'

/** Dead-letter reason of an event with an old id, which came after another connection showed new ids. */
export const OF_ENDED_IDS = 'it came after the ids of its stream had begun again'
