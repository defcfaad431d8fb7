import { decimalFormat } from './decimals.ts'
import { hash32 } from './random.ts'

/** Fixed properties of a symbol, and the typical values of its simulated market. */
export interface Instrument {
  readonly symbol: string
  readonly baseAsset: string
  readonly quoteAsset: string
  /**
   * Decimals of the tick size and of the step size, together at most 8, so that price × quantity is
   * exact.
   */
  readonly priceDecimals: number
  readonly quantityDecimals: number
  /** The long-run price, in ticks. */
  readonly referenceTicks: number
  /** Typical quantity of a trade, in steps. */
  readonly typicalSteps: number
  /** Formats ticks as the exchange does. */
  readonly price: (ticks: number) => string
  /** Formats steps as the exchange does. */
  readonly quantity: (steps: number) => string
}

const QUOTE_ASSETS = ['FDUSD', 'USDT', 'USDC', 'TUSD', 'BTC', 'ETH', 'BNB', 'EUR', 'TRY', 'BRL', 'JPY']

/** Price, decimals and typical quantity of well-known symbols, most traded first. */
const KNOWN: ReadonlyArray<
  readonly [symbol: string, price: number, priceDecimals: number, quantity: number, quantityDecimals: number]
> = [
  ['BTCUSDT', 60_000, 2, 0.004, 5],
  ['ETHUSDT', 2_600, 2, 0.09, 4],
  ['BNBUSDT', 580, 2, 0.25, 3],
  ['SOLUSDT', 150, 2, 1.2, 3],
  ['XRPUSDT', 0.6, 4, 240, 1],
  ['DOGEUSDT', 0.11, 5, 1_500, 0],
  ['ADAUSDT', 0.35, 4, 420, 1],
  ['TRXUSDT', 0.15, 4, 900, 1],
  ['AVAXUSDT', 26, 2, 6, 2],
  ['LINKUSDT', 11, 2, 14, 2],
]

/** Symbols of the simulated exchange by default. */
export const DEFAULT_SYMBOLS: readonly string[] = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']

/** Rank by trading volume, 0 the most: the well-known symbols in order, then all others. */
export function popularity(symbol: string): number {
  const index = KNOWN.findIndex(([known]) => known === symbol)
  return index === -1 ? KNOWN.length : index
}

/**
 * The properties of a symbol: as on the exchange if it is well known, otherwise derived from its
 * name.
 */
export function instrumentOf(symbol: string): Instrument {
  const known = KNOWN.find(([name]) => name === symbol)
  const [price, priceDecimals, quantity, quantityDecimals] =
    known?.slice(1).map(Number) ?? derivedValues(symbol)
  if (
    price === undefined ||
    priceDecimals === undefined ||
    quantity === undefined ||
    quantityDecimals === undefined
  ) {
    throw new Error(`${symbol} has no complete instrument`)
  }
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

/**
 * A price between 0.001 and 100 with some thousand ticks, and a quantity worth about 150 quote
 * units.
 */
function derivedValues(
  symbol: string,
): [price: number, priceDecimals: number, quantity: number, quantityDecimals: number] {
  const price = 10 ** ((hash32('price', symbol) / 0x1_0000_0000) * 5 - 3)
  const magnitude = Math.floor(Math.log10(price))
  const priceDecimals = Math.min(6, 3 - magnitude)
  return [price, priceDecimals, 150 / price, Math.max(0, Math.min(8 - priceDecimals, 1 + magnitude))]
}

/**
 * Returns the names in upper case without duplicates, separated from invalid ones. Symbols may be
 * non-ASCII.
 */
export function parseSymbols(names: readonly string[]): {
  symbols: readonly string[]
  wrong: readonly string[]
} {
  const unique = [...new Set(names.map((name) => name.trim().toUpperCase()))]
  const isSymbol = (name: string) => /^[\p{L}\p{N}._-]{1,50}$/u.test(name)
  return { symbols: unique.filter(isSymbol), wrong: unique.filter((name) => !isSymbol(name)) }
}
