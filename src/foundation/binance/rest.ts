import { z } from 'zod'
import { describeError, TapelineError } from '../runtime/errors.ts'
import { fetchByProxy } from './proxy.ts'

const EXCHANGE_INFO = z.object({
  symbols: z.array(
    z.object({ symbol: z.string(), status: z.string(), isSpotTradingAllowed: z.boolean().optional() }),
  ),
})

const SERVER_TIME = z.object({ serverTime: z.int() })

const TIMEOUT_MS = 10_000

/** The status of a symbol that trades, in the exchange's own word. */
export const TRADING = 'TRADING'
/** Our word for a symbol that is not for spot trading, whatever its status. */
const NOT_SPOT = 'NOT_SPOT'

/** What `exchangeInfo` costs of the 6,000 that an IP has a minute. */
export const EXCHANGE_INFO_WEIGHT = 20
export const SERVER_TIME_WEIGHT = 1

/**
 * The symbols that the exchange knows, with their status (`GET /api/v3/exchangeInfo`): `TRADING`, or `HALT`, `BREAK`
 * and others, of which it may trade again.
 *
 * @throws TapelineError `EXCHANGE` when the exchange refuses this region (451); any other error means that it
 *   could not be asked
 */
export async function fetchSymbols(restUrl: string, signal?: AbortSignal): Promise<Map<string, string>> {
  const response = await get(`${restUrl}/api/v3/exchangeInfo`, restUrl, signal)
  if (response.status === 451) {
    throw new TapelineError('EXCHANGE', `${restUrl} refuses this region (HTTP 451)`, {
      fix: 'Run from a place that the exchange serves, or set BINANCE_REST_URL and BINANCE_WS_URL to the host for yours.',
    })
  }
  if (!response.ok) throw new Error(`${restUrl} answered exchangeInfo with HTTP ${response.status}`)
  const info = EXCHANGE_INFO.parse(await response.json())
  return new Map(
    info.symbols.map(({ symbol, status, isSpotTradingAllowed }) => [
      symbol,
      isSpotTradingAllowed === false ? NOT_SPOT : status,
    ]),
  )
}

/**
 * The exchange's clock (`GET /api/v3/time`), milliseconds since the Unix epoch.
 *
 * @throws when it could not be asked, or answers without a time
 */
export async function fetchServerTime(restUrl: string, signal?: AbortSignal): Promise<number> {
  const response = await get(`${restUrl}/api/v3/time`, restUrl, signal)
  if (!response.ok) throw new Error(`${restUrl} answered time with HTTP ${response.status}`)
  return SERVER_TIME.parse(await response.json()).serverTime
}

async function get(url: string, restUrl: string, signal: AbortSignal | undefined): Promise<Response> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  return fetchByProxy(url, {
    signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
  }).catch((error: unknown) => {
    throw new Error(
      `${restUrl} cannot be reached: ${describeError(error instanceof Error ? (error.cause ?? error) : error)}`,
      { cause: error },
    )
  })
}

/** Those that trade now, sorted. */
export function thatTrade(statuses: ReadonlyMap<string, string>): string[] {
  return [...statuses].flatMap(([symbol, status]) => (status === TRADING ? [symbol] : [])).sort()
}
