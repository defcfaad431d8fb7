import { decimalFormat } from './decimals.ts'
import { hash32 } from './random.ts'

/** Fixed properties of a symbol, and the typical values of its simulated market. */
export interface Instrument {
  readonly symbol: string
  readonly baseAsset: string
  readonly quoteAsset: string
  /** Decimals of the tick and step sizes, at most 8 together: price × quantity is exact. */
  readonly priceDecimals: number
  readonly quantityDecimals: number
  /** The long-run price, in ticks. */
  readonly referenceTicks: number
  /** Typical quantity of a trade, in steps. */
  readonly typicalSteps: number
  readonly price: (ticks: number) => string
  readonly quantity: (steps: number) => string
}

/** Names of symbols, in upper case. The exchange lists non-ASCII ones too. */
export const SYMBOL = /^[\p{L}\p{N}._-]{1,50}$/u

const QUOTE_ASSETS = ['FDUSD', 'USDT', 'USDC', 'TUSD', 'BTC', 'ETH', 'BNB', 'EUR', 'TRY', 'BRL', 'JPY']

type Values = readonly [price: number, priceDecimals: number, quantity: number, quantityDecimals: number]

/** Well-known symbols, most traded first. */
const KNOWN: ReadonlyMap<string, Values> = new Map([
  ['BTCUSDT', [60_000, 2, 0.004, 5]],
  ['ETHUSDT', [2_600, 2, 0.09, 4]],
  ['BNBUSDT', [580, 2, 0.25, 3]],
  ['SOLUSDT', [150, 2, 1.2, 3]],
  ['XRPUSDT', [0.6, 4, 240, 1]],
  ['DOGEUSDT', [0.11, 5, 1_500, 0]],
  ['ADAUSDT', [0.35, 4, 420, 1]],
  ['TRXUSDT', [0.15, 4, 900, 1]],
  ['AVAXUSDT', [26, 2, 6, 2]],
  ['LINKUSDT', [11, 2, 14, 2]],
])

export const DEFAULT_SYMBOLS: readonly string[] = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']

/** Rank by trading volume, 0 the most: the well-known symbols in order, then all others. */
export function popularity(symbol: string): number {
  const index = [...KNOWN.keys()].indexOf(symbol)
  return index === -1 ? KNOWN.size : index
}

/** As on the exchange if the symbol is well known, otherwise derived from its name. */
export function instrumentOf(symbol: string): Instrument {
  const [price, priceDecimals, quantity, quantityDecimals] = KNOWN.get(symbol) ?? derivedValues(symbol)
  const quoteAsset = QUOTE_ASSETS.find((asset) => symbol.endsWith(asset) && symbol !== asset) ?? 'USDT'
  return {
    symbol,
    baseAsset: symbol.endsWith(quoteAsset) ? symbol.slice(0, -quoteAsset.length) : symbol,
    quoteAsset,
    priceDecimals,
    quantityDecimals,
    referenceTicks: Math.round(price * 10 ** priceDecimals),
    typicalSteps: Math.max(1, Math.round(quantity * 10 ** quantityDecimals)),
    price: decimalFormat(priceDecimals),
    quantity: decimalFormat(quantityDecimals),
  }
}

/** A price from 0.001 to 100 with some thousand ticks; a quantity worth about 150. */
function derivedValues(symbol: string): Values {
  const price = 10 ** ((hash32('price', symbol) / 0x1_0000_0000) * 5 - 3)
  const magnitude = Math.floor(Math.log10(price))
  const priceDecimals = Math.min(6, 3 - magnitude)
  return [price, priceDecimals, 150 / price, Math.max(0, Math.min(8 - priceDecimals, 1 + magnitude))]
}
