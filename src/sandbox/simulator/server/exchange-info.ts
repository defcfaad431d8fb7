import { decimalFormat } from '../market/decimals.ts'
import { type Instrument, instrumentOf } from '../market/instruments.ts'

/** The body of `GET /api/v3/exchangeInfo`: the members that clients of market data read, and their neighbours. */
export function exchangeInfo(
  symbols: readonly string[],
  serverTimeMs: number,
  weightPerMinute: number,
): object {
  return {
    timezone: 'UTC',
    serverTime: serverTimeMs,
    rateLimits: [
      { rateLimitType: 'REQUEST_WEIGHT', interval: 'MINUTE', intervalNum: 1, limit: weightPerMinute },
      { rateLimitType: 'RAW_REQUESTS', interval: 'MINUTE', intervalNum: 5, limit: 61_000 },
    ],
    exchangeFilters: [],
    symbols: symbols.map((symbol) => symbolInfo(instrumentOf(symbol))),
  }
}

function symbolInfo({ symbol, baseAsset, quoteAsset, priceDecimals, quantityDecimals }: Instrument): object {
  const tickSize = decimalFormat(priceDecimals)(1)
  const stepSize = decimalFormat(quantityDecimals)(1)
  return {
    symbol,
    status: 'TRADING',
    baseAsset,
    baseAssetPrecision: 8,
    quoteAsset,
    quotePrecision: 8,
    quoteAssetPrecision: 8,
    orderTypes: ['LIMIT', 'LIMIT_MAKER', 'MARKET'],
    isSpotTradingAllowed: true,
    isMarginTradingAllowed: false,
    filters: [
      { filterType: 'PRICE_FILTER', minPrice: tickSize, maxPrice: '10000000.00000000', tickSize },
      { filterType: 'LOT_SIZE', minQty: stepSize, maxQty: '90000000.00000000', stepSize },
    ],
    permissions: [],
    permissionSets: [['SPOT']],
  }
}
