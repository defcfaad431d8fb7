import { z } from 'zod'
import { describeError, TapelineError } from '../errors.ts'

const EXCHANGE_INFO = z.object({
  symbols: z.array(
    z.object({ symbol: z.string(), status: z.string(), isSpotTradingAllowed: z.boolean().optional() }),
  ),
})

const TIMEOUT_MS = 10_000

/**
 * The spot symbols that trade now (`GET /api/v3/exchangeInfo`, status `TRADING`).
 *
 * @throws TapelineError `EXCHANGE` when the exchange refuses this region (451); any other error means that it
 *   could not be asked
 */
export async function fetchTradingSymbols(restUrl: string, signal?: AbortSignal): Promise<Set<string>> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  const response = await fetch(`${restUrl}/api/v3/exchangeInfo`, {
    signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
  }).catch((error: unknown) => {
    throw new Error(
      `${restUrl} cannot be reached: ${describeError(error instanceof Error ? (error.cause ?? error) : error)}`,
      { cause: error },
    )
  })
  if (response.status === 451) {
    throw new TapelineError('EXCHANGE', `${restUrl} refuses this region (HTTP 451)`, {
      fix: 'Run from a place that the exchange serves, or set BINANCE_REST_URL and BINANCE_WS_URL to the host for yours.',
    })
  }
  if (!response.ok) throw new Error(`${restUrl} answered exchangeInfo with HTTP ${response.status}`)
  const info = EXCHANGE_INFO.parse(await response.json())
  return new Set(
    info.symbols
      .filter((entry) => entry.status === 'TRADING' && entry.isSpotTradingAllowed !== false)
      .map((entry) => entry.symbol),
  )
}
