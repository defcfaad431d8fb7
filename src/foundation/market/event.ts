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
 * - `levels`: an array of `["price","quantity"]`, which may be empty.
 * - `limit`: how many levels per side a snapshot has at most.
 * - `unused`: a flag that is not stored.
 */
export const ROLES = {
  type: { kind: 'type', about: 'Event type.' },
  eventTime: { kind: 'time', about: 'Event time, {unit}s since the Unix epoch.' },
  tradeTime: { kind: 'time', about: 'Trade time, {unit}s since the Unix epoch.' },
  symbol: { kind: 'symbol', about: 'Symbol.' },
  /** With `id`: the event covers all ids from this one on. */
  firstId: { kind: 'id', about: 'First id.' },
  /** Trade id, aggregate trade id or (last) update id. */
  id: { kind: 'id', about: 'Id.' },
  price: { kind: 'decimal', about: 'Price.' },
  quantity: { kind: 'decimal', about: 'Quantity.' },
  askPrice: { kind: 'decimal', about: 'Best ask price.' },
  askQuantity: { kind: 'decimal', about: 'Best ask quantity.' },
  firstTradeId: { kind: 'tiles', about: 'First trade id.' },
  lastTradeId: { kind: 'tiles', about: 'Last trade id, not below the first.' },
  isBuyerMaker: { kind: 'flag', about: 'Whether the buyer was the maker: the taker sold.' },
  bids: {
    kind: 'levels',
    about: 'Bids as [price, quantity]; a quantity of 0 removes the level.',
  },
  asks: {
    kind: 'levels',
    about: 'Asks as [price, quantity]; a quantity of 0 removes the level.',
  },
  limit: { kind: 'limit', about: 'Levels per side that were requested.' },
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
  /** The value of its field `e`, if it has one. */
  readonly eventName: string
  /** The last part of its stream's name, like `btcusdt@aggTrade`; null if no stream delivers it. */
  readonly stream: string | null
  /** Whether it is recorded unless `STREAM_TYPES` says otherwise. */
  readonly isDefault: boolean
  /** The type whose rate stands in while this one's is unknown; null if none is as frequent. */
  readonly similar: string | null
  /** Whether the ids of a newly listed symbol are known to begin at 0. */
  readonly beginsAtZero: boolean
  /**
   * What its ids tell of missing events:
   * - `contiguous`: each id is one above the id before;
   * - `ranges`: an event covers the ids `firstId` to `id`, and begins one above the event before;
   * - `increasing`: ids have holes, so an outage is a window of time;
   * - `none`: it belongs to no sequence.
   */
  readonly ids: 'contiguous' | 'ranges' | 'increasing' | 'none'
  /**
   * - `trades`: trades, in the table `trades`; what is missing is fetched over REST.
   * - `bookTicker`: quotes, in the table `book_ticker`.
   * - `depth`: changes of order books, and whole books.
   */
  readonly topic: 'trades' | 'bookTicker' | 'depth'
  /** The exchange's own order; no spaces, no escapes. */
  readonly layout: Layout
  readonly rest: RestDeclaration | null
}

/** The topics of events. */
export type EventTopic = EventDeclaration['topic']

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
    eventName: 'trade',
    stream: 'trade',
    isDefault: true,
    similar: 'aggTrade',
    beginsAtZero: true,
    ids: 'contiguous',
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
    eventName: 'aggTrade',
    stream: 'aggTrade',
    isDefault: true,
    similar: 'trade',
    beginsAtZero: true,
    ids: 'contiguous',
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
    eventName: 'blockTrade',
    stream: 'blockTrade',
    isDefault: false,
    similar: null,
    beginsAtZero: false,
    ids: 'contiguous',
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
    eventName: 'bookTicker',
    stream: 'bookTicker',
    isDefault: true,
    similar: 'trade',
    beginsAtZero: false,
    ids: 'increasing',
    topic: 'bookTicker',
    layout: fieldsOf(
      { u: 'id', s: 'symbol', b: 'price', B: 'quantity', a: 'askPrice', A: 'askQuantity' },
      { u: 'Update id; increasing, not contiguous.', b: 'Best bid price.', B: 'Best bid quantity.' },
    ),
    rest: null,
  },
  depth: {
    about:
      'The levels of an order book that changed within 100 ms, in the same form. It covers the update ids U to u.',
    eventName: 'depthUpdate',
    stream: 'depth@100ms',
    isDefault: false,
    similar: 'trade',
    beginsAtZero: false,
    ids: 'ranges',
    topic: 'depth',
    layout: fieldsOf(
      { ...HEAD, U: 'firstId', u: 'id', b: 'bids', a: 'asks' },
      { U: 'First update id.', u: 'Last update id, not below the first.' },
    ),
    rest: null,
  },
  depthSnapshot: {
    about: 'An order book as REST returned it, up to a number of levels per side.',
    eventName: 'depthSnapshot',
    stream: null,
    isDefault: false,
    similar: null,
    beginsAtZero: false,
    ids: 'none',
    topic: 'depth',
    layout: fieldsOf(
      { e: 'type', s: 'symbol', lastUpdateId: 'id', limit: 'limit', bids: 'bids', asks: 'asks' },
      {
        lastUpdateId: 'The book contains the updates up to this id.',
        bids: 'Bids as [price, quantity], the highest first.',
        asks: 'Asks as [price, quantity], the lowest first.',
      },
    ),
    rest: null,
  },
} as const satisfies Record<string, EventDeclaration>

/** What a message can be. */
export type EventType = keyof typeof EVENT_DECLARATIONS

type TypesWith<Key extends keyof EventDeclaration, Value> = {
  [Type in EventType]: (typeof EVENT_DECLARATIONS)[Type][Key] extends Value ? Type : never
}[EventType]

/** The types that streams deliver, and `STREAM_TYPES` may name. */
export type StreamType = TypesWith<'stream', string>

/** The rows of `trades`, all of which REST has. */
export type TradeType = TypesWith<'topic', 'trades'>

/** Trades and quotes: each event is one row with its prices; an event of `depth` has any number of levels. */
export type TickType = TypesWith<'topic', 'trades' | 'bookTicker'>

/** The types whose ids tell exactly what is missing, so that a gap is a range of ids. */
export type SequencedType = TypesWith<'ids', 'contiguous' | 'ranges'>

export const EVENT_TYPES = Object.keys(EVENT_DECLARATIONS) as [EventType, ...EventType[]]

export const STREAM_TYPES = EVENT_TYPES.filter(isStreamType) as [StreamType, ...StreamType[]]

export const DEFAULT_EVENT_TYPES = STREAM_TYPES.filter((type) => EVENT_DECLARATIONS[type].isDefault)

export const TRADE_TYPES = EVENT_TYPES.filter(isTradeType) as [TradeType, ...TradeType[]]

export const TICK_TYPES = EVENT_TYPES.filter(isTickType) as [TickType, ...TickType[]]

export const SEQUENCED_TYPES = EVENT_TYPES.filter(isSequenced) as [SequencedType, ...SequencedType[]]

export function declarationOf(type: EventType): EventDeclaration {
  return EVENT_DECLARATIONS[type]
}

export function isStreamType(type: EventType): type is StreamType {
  return EVENT_DECLARATIONS[type].stream !== null
}

export function isTradeType(type: EventType): type is TradeType {
  return EVENT_DECLARATIONS[type].topic === 'trades'
}

export function isTickType(type: EventType): type is TickType {
  return EVENT_DECLARATIONS[type].topic !== 'depth'
}

export function isSequenced(type: EventType): type is SequencedType {
  const { ids } = EVENT_DECLARATIONS[type]
  return ids === 'contiguous' || ids === 'ranges'
}

/** Whether its messages name how often the exchange had restarted the ids. */
export function hasEpoch(type: EventType): boolean {
  return EVENT_DECLARATIONS[type].ids !== 'increasing'
}

/** Whether the exchange gives it a time, so that the time unit matters. */
export function hasTimes(type: EventType): boolean {
  return declarationOf(type).layout.some(([, role]) => ROLES[role].kind === 'time')
}

export function byEventType<Value>(value: (type: EventType) => Value): Record<EventType, Value> {
  return Object.fromEntries(EVENT_TYPES.map((type) => [type, value(type)])) as Record<EventType, Value>
}

/** Returns a record with a value for each type whose ids tell what is missing. */
export function bySequencedType<Value>(value: (type: SequencedType) => Value): Record<SequencedType, Value> {
  const values = SEQUENCED_TYPES.map((type) => [type, value(type)])
  return Object.fromEntries(values) as Record<SequencedType, Value>
}

export function byTradeType<Value>(value: (type: TradeType) => Value): Record<TradeType, Value> {
  return Object.fromEntries(TRADE_TYPES.map((type) => [type, value(type)])) as Record<TradeType, Value>
}

export function byTickType<Value>(value: (type: TickType) => Value): Record<TickType, Value> {
  return Object.fromEntries(TICK_TYPES.map((type) => [type, value(type)])) as Record<TickType, Value>
}

/** Returns milliseconds: trade time, or event time of a depth update; null if it has neither. */
export function exchangeTimeMs(event: {
  readonly type: EventType
  readonly tradeTimeUs: number
  readonly eventTimeUs: number
}): number | null {
  if (isTradeType(event.type)) return Math.floor(event.tradeTimeUs / 1000)
  return event.type === 'depth' ? Math.floor(event.eventTimeUs / 1000) : null
}

/** Returns the type whose rate stands in for this one's; null if none is as frequent. */
export function similarTo(type: StreamType): StreamType | null {
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
export function streamName(symbol: string, type: StreamType): string {
  return `${symbol.toLowerCase()}@${EVENT_DECLARATIONS[type].stream}`
}

const TYPE_OF_STREAM = new Map(
  STREAM_TYPES.map((type): [string, StreamType] => [EVENT_DECLARATIONS[type].stream, type]),
)

/** Returns the event type of a stream name; null for other streams. */
export function eventTypeOf(stream: string): StreamType | null {
  return TYPE_OF_STREAM.get(stream.slice(stream.indexOf('@') + 1)) ?? null
}

/** Dead-letter reason of an event whose id another event has, as some of the exchange's aggregates do. */
export const SECOND_UNDER_ID = 'another event is stored under its id'

/** Dead-letter reason of an event with an old id, which came after another connection showed new ids. */
export const OF_ENDED_IDS = 'it came after the ids of its stream had begun again'
