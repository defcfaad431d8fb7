import { type EventType, streamName } from '../../src/foundation/market/event.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'

/** The true events of one id sequence: of a symbol, type and epoch. */
export interface TrueSequence {
  readonly symbol: string
  readonly type: 'trade' | 'aggTrade'
  readonly epoch: number
  readonly firstId: number
  /** Trade times by id, from the first on; milliseconds since the Unix epoch. */
  readonly timesMs: number[]
  /** aggTrade: the first trade of each; its last one precedes the next one's first. */
  readonly firstTrades: number[]
}

/** Quotes of a symbol, in the order of their ids. */
export interface TrueQuotes {
  readonly ids: number[]
  readonly timesMs: number[]
  /** The fate of each; see {@link Exchange}. */
  readonly fates: number[]
}

/** An event on its way to the connections. */
export interface MarketEvent {
  readonly stream: string
  readonly frame: Buffer
  /** bookTicker: where to record its fate. */
  readonly quote: { readonly quotes: TrueQuotes; readonly index: number } | null
}

/** Status in `exchangeInfo`; null: not listed. */
export type SymbolStatus = 'TRADING' | 'BREAK' | null

interface SymbolMarket {
  readonly symbol: string
  readonly everyMs: number
  status: SymbolStatus
  /** When it last did not trade, on the monotonic clock. */
  quietUntilMs: number
  trade: TrueSequence
  aggTrade: TrueSequence
  readonly quotes: TrueQuotes
}

const FIRST_ID = 1000

export function priceOf(id: number): string {
  return `${1 + (id % 9973)}.50`
}

export function quantityOf(id: number): string {
  return `${1 + (id % 97)}.25`
}

/**
 * A market of trades, their aggTrades and quotes, in bursts. It knows every event, and so is the
 * truth for comparison with ingestion's.
 */
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
    market.trade = this.#begin(symbol, 'trade', market.trade.epoch + 1, 1)
    market.aggTrade = this.#begin(symbol, 'aggTrade', market.aggTrade.epoch + 1, 1)
  }

  /** The present sequence, which REST shows. */
  current(symbol: string, type: 'trade' | 'aggTrade'): TrueSequence {
    return this.#marketOf(symbol)[type]
  }

  quotes(symbol: string): TrueQuotes {
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
      trade: this.#begin(symbol, 'trade', 0, firstId),
      aggTrade: this.#begin(symbol, 'aggTrade', 0, firstId),
      quotes: { ids: [], timesMs: [], fates: [] },
    }
  }

  #begin(symbol: string, type: 'trade' | 'aggTrade', epoch: number, firstId: number): TrueSequence {
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

  #trade({ symbol, trade }: SymbolMarket): MarketEvent {
    const id = trade.firstId + trade.timesMs.length
    const isEarly = this.#earlyOneIn > 0 && this.#random.chance(1 / this.#earlyOneIn)
    const timeMs = this.#wallMs - (isEarly ? 1 : 0)
    trade.timesMs.push(timeMs)
    return event(
      symbol,
      'trade',
      `"e":"trade","E":${this.#wallMs},"s":"${symbol}","t":${id},${this.#rest(id, timeMs)}`,
    )
  }

  #aggTrade({ symbol, trade, aggTrade }: SymbolMarket, trades: number): MarketEvent {
    const id = aggTrade.firstId + aggTrade.timesMs.length
    const last = trade.firstId + trade.timesMs.length - 1
    aggTrade.timesMs.push(this.#wallMs)
    aggTrade.firstTrades.push(last - trades + 1)
    const range = `"f":${last - trades + 1},"l":${last}`
    const names = `"e":"aggTrade","E":${this.#wallMs},"s":"${symbol}","a":${id}`
    return event(symbol, 'aggTrade', `${names},${range},${this.#rest(id, this.#wallMs)}`)
  }

  #rest(id: number, timeMs: number): string {
    return `"p":"${priceOf(id)}","q":"${quantityOf(id)}","T":${timeMs},"m":true,"M":true`
  }

  #quote({ symbol, quotes }: SymbolMarket): MarketEvent {
    const id = (quotes.ids.at(-1) ?? FIRST_ID) + this.#random.whole(1, 3)
    const index = quotes.ids.push(id) - 1
    quotes.timesMs.push(this.#wallMs)
    quotes.fates.push(0)
    const text = `"u":${id},"s":"${symbol}","b":"1.10","B":"3","a":"1.20","A":"4"`
    return { ...event(symbol, 'bookTicker', text), quote: { quotes, index } }
  }

  get #wallMs(): number {
    return Math.floor(this.#clock.wallMicros() / 1000)
  }
}

function event(symbol: string, type: EventType, fields: string): MarketEvent {
  const stream = streamName(symbol, type)
  return { stream, frame: Buffer.from(`{"stream":"${stream}","data":{${fields}}}`), quote: null }
}
