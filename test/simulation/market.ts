import { byTradeType, streamName, type TickType, type TradeType } from '../../src/foundation/market/event.ts'
import {
  frameWriter,
  type QuoteEvent,
  type TradeEvent,
} from '../../src/sandbox/simulator/market/market-event.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { firstIndex, type TradeHistory } from '../../src/sandbox/simulator/market/trade-history.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { FATE } from './fates.ts'

/** The true events of one id sequence: of a symbol, type and epoch. */
export interface TrueSequence {
  readonly symbol: string
  readonly type: TradeType
  readonly epoch: number
  readonly firstId: number
  /** Trade times by id, from the first on; milliseconds since the Unix epoch. */
  readonly timesMs: number[]
  /** aggTrade: the first trade of each; its last one precedes the next one's first. */
  readonly firstTrades: number[]
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
}

/** Status in `exchangeInfo`; null: not listed. */
export type SymbolStatus = 'TRADING' | 'BREAK' | null

interface SymbolMarket {
  readonly symbol: string
  readonly everyMs: number
  status: SymbolStatus
  /** When it last did not trade, on the monotonic clock. */
  quietUntilMs: number
  /** The present sequences, which REST shows. */
  current: Readonly<Record<TradeType, TrueSequence>>
  /** In the order of their ids. */
  readonly quotes: TrueQuote[]
}

const FIRST_ID = 1000

export function priceOf(id: number): string {
  return `${1 + (id % 9973)}.50`
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
  /** One trade in this many has a time of 1 ms before it; 0 for none. */
  readonly #earlyOneIn: number
  #closed = false
  events = 0

  /** @param symbols the mean interval of each symbol's events, in milliseconds */
  constructor(
    symbols: Readonly<Record<string, number>>,
    clock: VirtualClock,
    random: Random,
    emit: (events: readonly MarketEvent[]) => void,
    earlyOneIn = 0,
  ) {
    this.#earlyOneIn = earlyOneIn
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
    market.current = byTradeType((type) => this.#begin(symbol, type, market.current[type].epoch + 1, 1))
  }

  /** The present sequence, which REST shows. */
  current(symbol: string, type: TradeType): TrueSequence {
    return this.#marketOf(symbol).current[type]
  }

  /** The id of the next event. */
  nextId(symbol: string, type: TradeType): number {
    const { firstId, timesMs } = this.current(symbol, type)
    return firstId + timesMs.length
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
      current: byTradeType((type) => this.#begin(symbol, type, 0, firstId)),
      quotes: [],
    }
  }

  #begin(symbol: string, type: TradeType, epoch: number, firstId: number): TrueSequence {
    const sequence = { symbol, type, epoch, firstId, timesMs: [], firstTrades: [] }
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
  }

  #trade(market: SymbolMarket): MarketEvent {
    const { symbol, current } = market
    const isEarly = this.#earlyOneIn > 0 && this.#random.chance(1 / this.#earlyOneIn)
    const index = current.trade.timesMs.push(this.#wallMs - (isEarly ? 1 : 0)) - 1
    return eventOf(symbol, 'trade', {
      ...tradeOf('trade', market, current.trade, index),
      eventTime: this.#wallMs,
    })
  }

  #aggTrade(market: SymbolMarket, trades: number): MarketEvent {
    const { symbol } = market
    const { trade, aggTrade } = market.current
    const index = aggTrade.timesMs.push(this.#wallMs) - 1
    aggTrade.firstTrades.push(trade.firstId + trade.timesMs.length - trades)
    return eventOf(symbol, 'aggTrade', tradeOf('aggTrade', market, aggTrade, index))
  }

  #quote({ symbol, quotes }: SymbolMarket): MarketEvent {
    const id = (quotes.at(-1)?.id ?? FIRST_ID) + this.#random.whole(1, 3)
    const quote: TrueQuote = { id, timeMs: this.#wallMs, fate: FATE.nobody }
    quotes.push(quote)
    return { ...eventOf(symbol, 'bookTicker', { id, ...QUOTE }), quote }
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

const QUOTE = { price: '1.10', quantity: '3', askPrice: '1.20', askQuantity: '4' }

function tradeOf(
  type: TradeType,
  market: SymbolMarket,
  { firstId, timesMs, firstTrades }: TrueSequence,
  index: number,
): TradeEvent {
  const [id, time] = [firstId + index, timesMs[index] ?? 0]
  const { trade } = market.current
  const end = firstTrades[index + 1] ?? trade.firstId + trade.timesMs.length
  return {
    ...{ id, price: priceOf(id), quantity: quantityOf(id), isBuyerMaker: true },
    ...{ eventTime: time, tradeTime: time },
    ...(type === 'aggTrade' ? { firstTradeId: firstTrades[index] ?? 0, lastTradeId: end - 1 } : {}),
  }
}

function eventOf(symbol: string, type: TickType, event: TradeEvent | QuoteEvent): MarketEvent {
  return {
    stream: streamName(symbol, type),
    frame: Buffer.from(frameWriter(symbol, type)(event)),
    quote: null,
  }
}
