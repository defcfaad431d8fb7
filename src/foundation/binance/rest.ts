import { z } from 'zod'
import { isTime } from '../market/fields.ts'
import { exchangeTimeUnit, TIME_UNIT_HEADER, TIME_UNITS, type TimeUnit } from '../market/time-unit.ts'
import { describeError } from '../runtime/errors.ts'
import { readExchangeInfo, TRADING } from './exchange-info.ts'
import { byProxy, fetchByProxy } from './proxy.ts'
import { ExchangeRefusal, refusalOfResponse } from './refusal.ts'
import { EXCHANGE_IDENTITY_HEADER, type ExchangeAnswer } from './stream-socket.ts'

const SERVER_TIME = z.object({ serverTime: z.int() })

const TIMEOUT_MS = 10_000
/** `exchangeInfo` of the whole market has 6 MB. */
const EXCHANGE_INFO_TIMEOUT_MS = 60_000

/** Reduces the answer for the whole market from 15 to 6 MB. */
const SMALL = '?showPermissionSets=false'

/** Weight of an `exchangeInfo` request, of the 6,000 per minute and IP. */
export const EXCHANGE_INFO_WEIGHT = 20
export const SERVER_TIME_WEIGHT = 1

/**
 * Returns the status of each symbol (`GET /api/v3/exchangeInfo`): `TRADING`, `HALT`, `BREAK` and
 * others.
 * @throws ExchangeRefusal for an HTTP error; other errors without a valid answer
 */
export async function fetchSymbols(restUrl: string, signal?: AbortSignal): Promise<Map<string, string>> {
  const response = await get(restUrl, `exchangeInfo${SMALL}`, signal).catch((error: unknown) => {
    // An exchange with an older interface refuses the unknown parameter.
    const isUnknown = error instanceof ExchangeRefusal && error.refusal.status === 400
    return isUnknown ? get(restUrl, 'exchangeInfo', signal) : Promise.reject(error)
  })
  if (response.body === null) throw new Error(`${restUrl} answered exchangeInfo without a body`)
  return readExchangeInfo(response.body)
}

/** Returns the exchange's clock (`GET /api/v3/time`), ms since the Unix epoch. @throws like `fetchSymbols` */
export async function fetchServerTime(restUrl: string, signal?: AbortSignal): Promise<number> {
  const response = await get(restUrl, 'time', signal)
  return SERVER_TIME.parse(await response.json()).serverTime
}

/** Returns name and time unit that REST announces (`GET /api/v3/time`). @throws like `fetchSymbols` */
export async function fetchIdentity(
  restUrl: string,
  unit: TimeUnit,
  signal?: AbortSignal,
): Promise<ExchangeAnswer> {
  const response = await get(restUrl, 'time', signal, { [TIME_UNIT_HEADER]: exchangeTimeUnit(unit) })
  const { serverTime } = SERVER_TIME.parse(await response.json())
  return {
    named: response.headers.get(EXCHANGE_IDENTITY_HEADER),
    timeUnit: TIME_UNITS.find((one) => isTime(serverTime, one)) ?? null,
  }
}

async function get(
  restUrl: string,
  what: string,
  signal: AbortSignal | undefined,
  headers: Readonly<Record<string, string>> = {},
): Promise<Response> {
  const timeout = AbortSignal.timeout(what.startsWith('exchangeInfo') ? EXCHANGE_INFO_TIMEOUT_MS : TIMEOUT_MS)
  const response = await fetchByProxy(`${restUrl}/api/v3/${what}`, {
    headers,
    signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
  }).catch((error: unknown) => {
    throw new Error(
      `${restUrl} cannot be reached${byProxy(restUrl)}: ${describeError(error instanceof Error ? (error.cause ?? error) : error)}`,
      { cause: error },
    )
  })
  if (response.ok) return response
  const [path] = what.split('?')
  throw new ExchangeRefusal(`${restUrl} refused ${path}`, await refusalOfResponse(response, Date.now()))
}

/** Returns the symbols that trade now, sorted. */
export function thatTrade(statuses: ReadonlyMap<string, string>): string[] {
  return [...statuses].flatMap(([symbol, status]) => (status === TRADING ? [symbol] : [])).sort()
}
