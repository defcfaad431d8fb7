import {
  byTradeType,
  type SequencedType,
  streamName,
  type TickType,
  type TradeType,
} from '../../src/foundation/market/event.ts'
import {
  frameWriter,
  type QuoteEvent,
  type TradeEvent,
} from '../../src/sandbox/simulator/market/market-event.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { firstIndex, type TradeHistory } from '../../src/sandbox/simulator/market/trade-history.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { FATE } from './fates.ts'
import { TrueBook } from './true-book.ts'

/** The true events of one id sequence: of a symbol, type and epoch. */
export interface TrueSequence {
  readonly symbol: string
  readonly type: SequencedType
  readonly epoch: number
  readonly firstId: number
  /** Times by id, from the first on; milliseconds since the Unix epoch. */
  readonly timesMs: number[]
  /** The prices of trades, by id. */
  readonly prices: string[]
  /** aggTrade: the first trade of each; its last one precedes the next one's first. */
  readonly firstTrades: number[]
  /** depth: how many changes the order book had before the first id. */
  readonly position: number
}

export interface TrueQuote {
  readonly id: number
  readonly timeMs: number
  /** One of {@link FATE}. */
  fate: number
}

/** An event on its way to the connections. */
export interface MarketEvent {
  readonly stream: string
  readonly frame: Buffer
  /** For a bookTicker, to record its fate. */
  readonly quote: TrueQuote | null
  readonly update: DepthUpdate | null
}

/** Some ids of a sequence of depth updates. */
export interface DepthUpdate {
  readonly sequence: TrueSequence
  readonly from: number
  readonly to: number
  /** To which of the exchange's {@link CUTS} it belongs: a connection gets those of one. */
  readonly cut: number
}

/** Ways in which the changes of an order book are cut into updates. */
export const CUTS = [0, 1] as const

/** Status in `exchangeInfo`; null: not listed. */
export type SymbolStatus = 'TRADING' | 'BREAK' | null

interface MarketDraws {
  readonly random: Random
  /** For order books; null if there are none. */
  readonly bookRandom: Random | null
  /** One trade in this many has a time of 1 ms before it; 0 for none. */
  readonly earlyOneIn: number
}

interface SymbolMarket {
  readonly symbol: string
  readonly everyMs: number
  status: SymbolStatus
  /** When it last did not trade, on the monotonic clock. */
  quietUntilMs: number
  /** The present sequences, which REST shows. */
  current: Readonly<Record<SequencedType, TrueSequence>>
  /** Null if the world has no order books. */
  readonly book: TrueBook | null
  /** By cut: the position up to which its updates have been sent, and whether the next one is due. */
  readonly cuts: ReadonlyArray<{ sentTo: number; isDue: boolean }>
  /** In the order of their ids. */
  readonly quotes: TrueQuote[]
}

const FIRST_ID = 1000

/** @param whole the best bid, in a world with order books */
export function priceOf(id: number, whole: number | null): string {
  return whole === null ? `${1 + (id % 9973)}.50` : `${whole}.${id % 9973}`
}

export function quantityOf(id: number): string {
  return `${1 + (id % 97)}.25`
}

/** A market of trades, their aggTrades and quotes, in bursts: the truth for comparison with ingestion's. */
export class Market {
  readonly sequences: TrueSequence[] = []
  readonly #symbols: SymbolMarket[]
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #emit: (events: readonly MarketEvent[]) => void
  readonly #earlyOneIn: number
  readonly #bookRandom: Random | null
  #closed = false
  events = 0

  /** @param symbols the mean interval of each symbol's events, in milliseconds */
  constructor(
    symbols: Readonly<Record<string, number>>,
    clock: VirtualClock,
    { random, bookRandom, earlyOneIn }: MarketDraws,
    emit: (events: readonly MarketEvent[]) => void,
  ) {
    this.#earlyOneIn = earlyOneIn
    this.#bookRandom = bookRandom
    this.#clock = clock
    this.#random = random
    this.#emit = emit
    this.#symbols = Object.entries(symbols).map(([symbol, everyMs]) => this.#open(symbol, everyMs, FIRST_ID))
  }

  start(): void {
    for (const market of this.#symbols) this.#later(market)
  }

  stop(): void {
    this.#closed = true
  }

  /** Generates many events of the busy symbols in a short time. */
  storm(occurrences: number, withinMs: number): void {
    const busy = this.#symbols.filter(({ everyMs }) => everyMs < 60_000)
    for (let i = 0; i < occurrences; i++) {
      this.#clock.schedule(this.#random.between(0, withinMs), () => this.#occur(this.#random.pick(busy)))
    }
  }

  /** Lists a symbol, whose ids begin at 1, and lets it trade. */
  list(symbol: string, everyMs: number): void {
    const market = this.#open(symbol, everyMs, 1)
    this.#symbols.push(market)
    this.#later(market)
  }

  /** Changes the status of listed symbols, which stops or resumes their trading. */
  setStatus(symbols: readonly string[], status: SymbolStatus): void {
    for (const symbol of symbols) {
      const market = this.#marketOf(symbol)
      if (market.status === null) continue
      if (market.status !== 'TRADING') market.quietUntilMs = this.#clock.monotonicMs()
      market.status = status
    }
  }

  /** Symbols and their statuses, as in `exchangeInfo`. */
  get statuses(): Map<string, string> {
    return new Map(this.#symbols.flatMap(({ symbol, status }) => (status === null ? [] : [[symbol, status]])))
  }

  /** Whether the symbol of a stream does not trade, or recently did not. */
  isQuiet(stream: string, withinMs: number): boolean {
    const { status, quietUntilMs } = this.#marketOf(stream.slice(0, stream.indexOf('@')).toUpperCase())
    return status !== 'TRADING' || this.#clock.monotonicMs() - quietUntilMs < withinMs
  }

  /** Restarts the ids of a symbol at 1. */
  restartIds(symbol: string): void {
    const market = this.#marketOf(symbol)
    for (const cut of CUTS) this.#sendUpdate(market, cut)
    const position = market.book?.position ?? 0
    market.current = this.#beginAll(symbol, market.current.trade.epoch + 1, 1, position)
  }

  /** The present sequence, which REST shows. */
  current(symbol: string, type: SequencedType): TrueSequence {
    return this.#marketOf(symbol).current[type]
  }

  /** The id of the next event. */
  nextId(symbol: string, type: TradeType): number {
    const { firstId, timesMs } = this.current(symbol, type)
    return firstId + timesMs.length
  }

  get hasBooks(): boolean {
    return this.#bookRandom !== null
  }

  /** @throws if the world has no order books */
  book(symbol: string): TrueBook {
    const { book } = this.#marketOf(symbol)
    if (book === null) throw new Error(`No order book of ${symbol}`)
    return book
  }

  /** The last update id in the book at a position, and its sequence. */
  updateAt(symbol: string, position: number): { readonly sequence: TrueSequence; readonly id: number } {
    const sequences = this.sequences.filter((one) => one.symbol === symbol && one.type === 'depth')
    const sequence = sequences.findLast((one) => one.position < position) ?? sequences[0]
    if (sequence === undefined) throw new Error(`No updates of ${symbol}`)
    return { sequence, id: sequence.firstId + position - sequence.position - 1 }
  }

  /** The position of an order book after an update. */
  positionOf(symbol: string, epoch: number, id: number): number {
    const isOf = (one: TrueSequence) => one.symbol === symbol && one.type === 'depth' && one.epoch === epoch
    const sequence = this.sequences.find(isOf)
    return sequence === undefined ? 0 : sequence.position + id - sequence.firstId + 1
  }

  quotes(symbol: string): readonly TrueQuote[] {
    return this.#marketOf(symbol).quotes
  }

  get symbols(): string[] {
    return this.#symbols.map(({ symbol }) => symbol)
  }

  #marketOf(symbol: string): SymbolMarket {
    const market = this.#symbols.find((one) => one.symbol === symbol)
    if (market === undefined) throw new Error(`No market of ${symbol}`)
    return market
  }

  #open(symbol: string, everyMs: number, firstId: number): SymbolMarket {
    return {
      symbol,
      everyMs,
      status: 'TRADING',
      quietUntilMs: Number.NEGATIVE_INFINITY,
      current: this.#beginAll(symbol, 0, firstId, 0),
      quotes: [],
      book: this.#bookRandom === null ? null : new TrueBook(this.#bookRandom.fork()),
      cuts: CUTS.map(() => ({ sentTo: 0, isDue: false })),
    }
  }

  #beginAll(symbol: string, epoch: number, firstId: number, position: number) {
    const begin = (type: SequencedType) => this.#begin(symbol, type, epoch, firstId, position)
    // Ids that a lagging or absent process could not mistake for those before.
    const firstUpdate = 10 ** Math.max(0, 9 - 2 * epoch)
    return { ...byTradeType(begin), depth: this.#begin(symbol, 'depth', epoch, firstUpdate, position) }
  }

  #begin(
    symbol: string,
    type: SequencedType,
    epoch: number,
    firstId: number,
    position: number,
  ): TrueSequence {
    const sequence = { symbol, type, epoch, firstId, position, timesMs: [], prices: [], firstTrades: [] }
    this.sequences.push(sequence)
    return sequence
  }

  #later(market: SymbolMarket): void {
    this.#clock.schedule(this.#random.interval(market.everyMs), () => {
      this.#occur(market)
      this.#later(market)
    })
  }

  /** Generates some trades in one millisecond, their aggTrades, and quotes before and after. */
  #occur(market: SymbolMarket): void {
    if (this.#closed || market.status !== 'TRADING') return
    const trades = this.#random.chance(0.1) ? this.#random.whole(5, 40) : this.#random.whole(1, 3)
    const events = [this.#quote(market)]
    for (let left = trades; left > 0; ) {
      const together = this.#random.whole(1, Math.min(left, 4))
      for (let i = 0; i < together; i++) events.push(this.#trade(market))
      events.push(this.#aggTrade(market, together))
      left -= together
    }
    for (let quotes = this.#random.whole(0, trades); quotes > 0; quotes--) events.push(this.#quote(market))
    this.events += events.length
    this.#emit(events)
    this.#changeBook(market)
  }

  /** Changes the order book a few times, so that updates can be cut between the changes. */
  #changeBook(market: SymbolMarket): void {
    const { book, cuts } = market
    if (book === null || this.#bookRandom === null) return
    for (let left = this.#bookRandom.whole(1, 3); left > 0; left--)
      this.#clock.schedule(this.#bookRandom.between(0, 200), () => {
        const { timesMs } = market.current.depth
        const before = book.position
        book.change(this.#wallMs)
        for (let i = before; i < book.position; i++) timesMs.push(this.#wallMs)
        for (const cut of CUTS) {
          const state = cuts[cut]
          if (state === undefined || state.isDue) continue
          state.isDue = true
          this.#clock.schedule(this.#bookRandom?.between(20, CUT_MS) ?? 0, () =>
            this.#sendUpdate(market, cut),
          )
        }
      })
  }

  #sendUpdate({ symbol, book, cuts, current: { depth } }: SymbolMarket, cut: (typeof CUTS)[number]): void {
    const state = cuts[cut]
    if (book === null || state === undefined || state.sentTo === book.position) return
    const [from, to] = [state.sentTo, book.position]
    state.sentTo = to
    state.isDue = false
    const U = depth.firstId + from - depth.position
    const u = U + to - from - 1
    const [b, a] = [book.diff(from, to, 'bids'), book.diff(from, to, 'asks')]
    const update = { sequence: depth, from: U, to: u, cut }
    const stream = streamName(symbol, 'depth')
    const data = { e: 'depthUpdate', E: this.#wallMs, s: symbol, U, u, b, a }
    this.events++
    this.#emit([{ stream, frame: Buffer.from(JSON.stringify({ stream, data })), quote: null, update }])
  }

  #trade(market: SymbolMarket): MarketEvent {
    const { symbol, current } = market
    const isEarly = this.#earlyOneIn > 0 && this.#random.chance(1 / this.#earlyOneIn)
    const index = current.trade.timesMs.push(this.#wallMs - (isEarly ? 1 : 0)) - 1
    this.#addPrice(market, current.trade, index)
    return eventOf(symbol, 'trade', {
      ...tradeOf('trade', market, current.trade, index),
      eventTime: this.#wallMs,
    })
  }

  #aggTrade(market: SymbolMarket, trades: number): MarketEvent {
    const { symbol } = market
    const { trade, aggTrade } = market.current
    const index = aggTrade.timesMs.push(this.#wallMs) - 1
    this.#addPrice(market, aggTrade, index)
    aggTrade.firstTrades.push(trade.firstId + trade.timesMs.length - trades)
    return eventOf(symbol, 'aggTrade', tradeOf('aggTrade', market, aggTrade, index))
  }

  #addPrice({ book }: SymbolMarket, { firstId, prices }: TrueSequence, index: number): void {
    prices.push(priceOf(firstId + index, book?.top.bid ?? null))
  }

  #quote({ symbol, quotes, book }: SymbolMarket): MarketEvent {
    const id = (quotes.at(-1)?.id ?? FIRST_ID) + this.#random.whole(1, 3)
    const quote: TrueQuote = { id, timeMs: this.#wallMs, fate: FATE.nobody }
    quotes.push(quote)
    return { ...eventOf(symbol, 'bookTicker', { id, ...(book === null ? QUOTE : topOf(book)) }), quote }
  }

  /** The events of the present sequences up to a time, for REST: from an id, or the latest. */
  eventsUntil(visibleMs: () => number): TradeHistory['events'] {
    return (type, symbol, { fromId, limit }) => {
      const market = this.#marketOf(symbol)
      const sequence = market.current[type]
      const shown = firstIndex(0, sequence.timesMs.length, (at) => (sequence.timesMs[at] ?? 0) > visibleMs())
      const from = Math.max(0, fromId === undefined ? shown - limit : fromId - sequence.firstId)
      const indices = Array.from({ length: Math.max(0, Math.min(limit, shown - from)) }, (_, at) => from + at)
      return indices.map((index) => tradeOf(type, market, sequence, index))
    }
  }

  get #wallMs(): number {
    return Math.floor(this.#clock.wallMicros() / 1000)
  }
}

/** An update is sent at the latest so long after the first change in it. */
const CUT_MS = 100

const QUOTE = { price: '1.10', quantity: '3', askPrice: '1.20', askQuantity: '4' }

function topOf({ top: { bid, bidQuantity, ask, askQuantity } }: TrueBook) {
  const [price, quantity, askPrice] = [`${bid}.00`, `${bidQuantity}.00`, `${ask}.00`]
  return { price, quantity, askPrice, askQuantity: `${askQuantity}.00` }
}

function tradeOf(
  type: TradeType,
  market: SymbolMarket,
  { firstId, timesMs, prices, firstTrades }: TrueSequence,
  index: number,
): TradeEvent {
  const [id, time] = [firstId + index, timesMs[index] ?? 0]
  const { trade } = market.current
  const end = firstTrades[index + 1] ?? trade.firstId + trade.timesMs.length
  return {
    ...{ id, price: prices[index] ?? '', quantity: quantityOf(id), isBuyerMaker: true },
    ...{ eventTime: time, tradeTime: time },
    ...(type === 'aggTrade' ? { firstTradeId: firstTrades[index] ?? 0, lastTradeId: end - 1 } : {}),
  }
}

function eventOf(symbol: string, type: TickType, event: TradeEvent | QuoteEvent): MarketEvent {
  return {
    stream: streamName(symbol, type),
    frame: Buffer.from(frameWriter(symbol, type)(event)),
    quote: null,
    update: null,
  }
}
