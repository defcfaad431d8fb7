import { z } from 'zod'
import { isTime } from '../market/fields.ts'
import type { IdRange } from '../market/id-ranges.ts'
import {
  exchangeTimeUnit,
  MICROSECONDS_IN,
  TIME_UNIT_HEADER,
  TIME_UNITS,
  type TimeUnit,
} from '../market/time-unit.ts'
import { describeError } from '../runtime/errors.ts'
import { outsideText } from '../runtime/outside-text.ts'
import { EXCHANGE_IDENTITY_HEADER } from './handshake.ts'
import { otherUnit } from './other-unit.ts'
import { fetchByProxy } from './proxy.ts'
import { type Refusal, refusalOfResponse } from './refusal.ts'

/**
 * A trade or aggTrade from REST, with the fields of the stream's payload except the event time `E`.
 */
export interface RestTrade {
  readonly id: number
  readonly price: string
  readonly quantity: string
  /** Microseconds. */
  readonly timeUs: number
  readonly isBuyerMaker: boolean
  readonly isBestMatch: boolean
  /** The trades that an aggTrade covers; null for a trade. */
  readonly trades: IdRange | null
}

/**
 * The outcome of a request.
 *
 * - `rows`: an answer with rows in ascending order of id.
 * - `refused`: an HTTP error.
 * - `failed`: no answer, or an invalid one.
 */
export type RestOutcome = (
  | { readonly kind: 'rows'; readonly rows: readonly RestTrade[] }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  | { readonly kind: 'failed'; readonly reason: string }
) & {
  /** Weight used by the whole IP this minute, if the exchange reports it. */
  readonly usedWeight?: number | null
}

export type RestTradeType = 'trade' | 'aggTrade'

/** Maximum rows in one answer. */
export const REST_LIMIT = 1000

/** Weight of a request, of the 6,000 per minute and IP. */
export const REST_WEIGHT: Readonly<Record<RestTradeType, number>> = { trade: 25, aggTrade: 4 }

const TIMEOUT_MS = 10_000

const TRADE = z.object({
  id: z.int(),
  price: z.string(),
  qty: z.string(),
  time: z.int(),
  isBuyerMaker: z.boolean(),
  isBestMatch: z.boolean(),
})

const AGG_TRADE = z.object({
  a: z.int(),
  p: z.string(),
  q: z.string(),
  f: z.int(),
  l: z.int(),
  T: z.int(),
  m: z.boolean(),
  M: z.boolean(),
})

/** `fromId` null requests the latest trades. `limit` is at most `REST_LIMIT`. */
export interface TradeRequest {
  readonly type: RestTradeType
  readonly symbol: string
  readonly fromId: number | null
  readonly limit: number
}

/** Requests trades. Never rejects; a request is aborted with the signal. */
export type FetchTrades = (request: TradeRequest, signal: AbortSignal) => Promise<RestOutcome>

/**
 * Returns requests over HTTP: `historicalTrades` and `aggTrades`.
 *
 * @param unit of the times
 * @param wallMs milliseconds since the Unix epoch, for a Retry-After with a date
 * @param apiKey for `historicalTrades` of exchanges that require one; undefined to send none
 * @param source name of the exchange; checked here, because REST may have been down at the start
 */
export function tradeRest(
  restUrl: string,
  unit: TimeUnit,
  wallMs: () => number,
  apiKey?: string,
  source?: string,
): FetchTrades {
  return async ({ type, symbol, fromId, limit }, signal) => {
    const query = new URLSearchParams({ symbol, limit: String(limit) })
    if (fromId !== null) query.set('fromId', String(fromId))
    const path = type === 'trade' ? 'historicalTrades' : 'aggTrades'
    const headers = { [TIME_UNIT_HEADER]: exchangeTimeUnit(unit) }
    const how: RequestInit =
      type === 'trade' && apiKey !== undefined
        ? // A redirect would send the key to another host.
          { headers: { ...headers, 'X-MBX-APIKEY': apiKey }, redirect: 'manual' }
        : { headers }
    try {
      const response = await fetchByProxy(`${restUrl}/api/v3/${path}?${query}`, {
        ...how,
        signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), signal]),
      })
      const named = response.headers.get(EXCHANGE_IDENTITY_HEADER)
      if (named !== null && source !== undefined && named !== source)
        throw new Error(`REST belongs to "${named}", not to "${source}": correct BINANCE_REST_URL`)
      return await outcome(type, unit, response, wallMs())
    } catch (error) {
      return {
        kind: 'failed',
        reason: outsideText(describeError(error instanceof Error ? (error.cause ?? error) : error)),
      }
    }
  }
}

async function outcome(
  type: RestTradeType,
  unit: TimeUnit,
  response: Response,
  nowMs: number,
): Promise<RestOutcome> {
  const usedWeight = usedWeightOf(response)
  if (response.ok) return { kind: 'rows', rows: parseRows(type, unit, await response.json()), usedWeight }
  return { kind: 'refused', refusal: await refusalOfResponse(response, nowMs), usedWeight }
}

function usedWeightOf(response: Response): number | null {
  const header = response.headers.get('x-mbx-used-weight-1m') ?? ''
  return /^\d+$/.test(header) ? Number(header) : null
}

/**
 * Returns microseconds. Rows in the other unit would be stored again, beside those of the stream.
 */
function timeUs(time: number, unit: TimeUnit): number {
  if (isTime(time, unit)) return time * MICROSECONDS_IN[unit]
  const other = TIME_UNITS.find((one) => isTime(time, one))
  if (other === undefined) throw new Error(`${time} is no time`)
  const { message, fix } = otherUnit('REST', other, unit, 'BINANCE_REST_URL')
  throw new Error(`${message}. ${fix}`)
}

function parseRows(type: RestTradeType, unit: TimeUnit, body: unknown): RestTrade[] {
  if (type === 'trade') {
    return z
      .array(TRADE)
      .parse(body)
      .map((row) => ({
        id: row.id,
        price: row.price,
        quantity: row.qty,
        timeUs: timeUs(row.time, unit),
        isBuyerMaker: row.isBuyerMaker,
        isBestMatch: row.isBestMatch,
        trades: null,
      }))
  }
  return z
    .array(AGG_TRADE)
    .parse(body)
    .map((row) => ({
      id: row.a,
      price: row.p,
      quantity: row.q,
      timeUs: timeUs(row.T, unit),
      isBuyerMaker: row.m,
      isBestMatch: row.M,
      trades: { from: row.f, to: row.l },
    }))
}
