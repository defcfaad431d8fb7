import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { aggTradeValue, bookTickerValue, record, tradeValue } from '../support/records.ts'
import { REFUSED_PRICE } from './memory-database.ts'
import type { LogMessage } from './memory-log.ts'

/** A busy symbol and a rare one in each partition. */
export const SYMBOLS = [
  { symbol: 'BUSY0', partition: 0, everyMs: 120 },
  { symbol: 'RARE0', partition: 0, everyMs: 15_000 },
  { symbol: 'BUSY1', partition: 1, everyMs: 200 },
  { symbol: 'RARE1', partition: 1, everyMs: 25_000 },
  { symbol: 'BUSY2', partition: 2, everyMs: 300 },
  { symbol: 'RARE2', partition: 2, everyMs: 20_000 },
] as const

const POISON: ReadonlyArray<Buffer | null> = [
  null,
  Buffer.alloc(0),
  Buffer.from('{"e":'),
  Buffer.from([0x7b, 0xff]),
  tradeValue({ p: 'NaN' }),
  aggTradeValue({ T: 1 }),
]

/** The messages of one symbol, with consecutive ids. */
export class SymbolFeed {
  readonly symbol: string
  readonly #random: Random
  #tradeId = 100
  #quoteId = 100

  constructor(symbol: string, random: Random) {
    this.symbol = symbol
    this.#random = random
  }

  /** @param nowMs wall clock */
  trade(nowMs: number, isGood: boolean): LogMessage {
    const { symbol } = this
    if (!isGood && this.#random.chance(1 / 150)) {
      const meant = { row: null, fate: 'undecodable', event: null } as const
      return { record: record(this.#random.pick(POISON)), meant }
    }
    const id = this.#tradeId++
    const isRefused = !isGood && this.#random.chance(1 / 200)
    const fields = { s: symbol, t: id, T: nowMs, E: nowMs, p: isRefused ? REFUSED_PRICE : '1.5' }
    const value = tradeValue({ ...fields, ingestion_timestamp_us: nowMs * 1000 })
    return this.#message('trade', id, nowMs, value, isRefused ? 'refused' : 'stored')
  }

  quote(nowMs: number): LogMessage {
    const u = this.#quoteId++
    const value = bookTickerValue({ s: this.symbol, u, ingestion_timestamp_us: nowMs * 1000 + (u % 1000) })
    return this.#message('bookTicker', u, nowMs, value, 'stored')
  }

  #message(
    type: 'trade' | 'bookTicker',
    id: number,
    timeMs: number,
    value: Buffer,
    fate: 'refused' | 'stored',
  ): LogMessage {
    const { symbol } = this
    const meant = { row: `${symbol} ${type} ${id}`, fate, event: { symbol, type, id, timeMs } }
    return { record: record(value), meant }
  }
}
