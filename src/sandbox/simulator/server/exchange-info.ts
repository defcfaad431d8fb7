import { type Instrument, instrumentOf } from '../market/instruments.ts'

/** The body of `GET /api/v3/exchangeInfo`, as far as clients of market data read it. */
export function exchangeInfo(
  symbols: ReadonlyArray<{ readonly symbol: string; readonly status: string }>,
  serverTimeMs: number,
  weightPerMinute: number,
  showPermissionSets: boolean,
): object {
  return {
    timezone: 'UTC',
    serverTime: serverTimeMs,
    rateLimits: [
      { rateLimitType: 'REQUEST_WEIGHT', interval: 'MINUTE', intervalNum: 1, limit: weightPerMinute },
      { rateLimitType: 'RAW_REQUESTS', interval: 'MINUTE', intervalNum: 5, limit: 61_000 },
    ],
    exchangeFilters: [],
    symbols: symbols.map(({ symbol, status }) => ({
      ...symbolInfo(instrumentOf(symbol), status),
      permissionSets: showPermissionSets ? [['SPOT']] : [],
    })),
  }
}

function symbolInfo({ symbol, baseAsset, quoteAsset, price, quantity }: Instrument, status: string): object {
  const [tickSize, stepSize] = [price(1), quantity(1)]
  return {
    symbol,
    status,
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
  }
}
