import { z } from 'zod'
import type { IdRange } from '../market/id-ranges.ts'
import { describeError } from '../runtime/errors.ts'
import { outsideText } from '../runtime/outside-text.ts'
import { fetchByProxy } from './proxy.ts'
import { type Refusal, refusalOfResponse } from './refusal.ts'

/** A trade or aggTrade as REST gives it, in the fields of the stream's payload; there is no event time `E`. */
export interface RestTrade {
  readonly id: number
  readonly price: string
  readonly quantity: string
  readonly timeMs: number
  readonly isBuyerMaker: boolean
  readonly isBestMatch: boolean
  /** The trades that an aggTrade covers; null for a trade. */
  readonly trades: IdRange | null
}

/**
 * What became of a request.
 *
 * - `rows`: answered; rows rise by id.
 * - `refused`: answered with an HTTP error.
 * - `failed`: no answer, or one that makes no sense.
 */
export type RestOutcome = (
  | { readonly kind: 'rows'; readonly rows: readonly RestTrade[] }
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  | { readonly kind: 'failed'; readonly reason: string }
) & {
  /** What the whole IP has used this minute, where the exchange says. */
  readonly usedWeight?: number | null
}

export type RestTradeType = 'trade' | 'aggTrade'

/** Rows in one answer, at most. */
export const REST_LIMIT = 1000

/** What a request costs of the 6,000 that an IP has a minute. */
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

/** `fromId` null: the latest. `limit` at most `REST_LIMIT`. */
export interface TradeRequest {
  readonly type: RestTradeType
  readonly symbol: string
  readonly fromId: number | null
  readonly limit: number
}

/** How the exchange's trades are asked for. Never rejects; when the signal aborts the request is broken off. */
export type FetchTrades = (request: TradeRequest, signal: AbortSignal) => Promise<RestOutcome>

/**
 * Asks over HTTP: `historicalTrades` and `aggTrades`.
 *
 * @param apiKey for `historicalTrades` of exchanges that ask for one; undefined to send none
 * @param wallMs milliseconds since the Unix epoch, for a Retry-After that is a date
 */
export function tradeRest(restUrl: string, wallMs: () => number, apiKey?: string): FetchTrades {
  return async ({ type, symbol, fromId, limit }, signal) => {
    const query = new URLSearchParams({ symbol, limit: String(limit) })
    if (fromId !== null) query.set('fromId', String(fromId))
    const path = type === 'trade' ? 'historicalTrades' : 'aggTrades'
    const key: RequestInit =
      type === 'trade' && apiKey !== undefined
        ? // A redirect would take the key to another host.
          { headers: { 'X-MBX-APIKEY': apiKey }, redirect: 'manual' }
        : {}
    try {
      const response = await fetchByProxy(`${restUrl}/api/v3/${path}?${query}`, {
        ...key,
        signal: AbortSignal.any([AbortSignal.timeout(TIMEOUT_MS), signal]),
      })
      return await outcome(type, response, wallMs())
    } catch (error) {
      return {
        kind: 'failed',
        reason: outsideText(describeError(error instanceof Error ? (error.cause ?? error) : error)),
      }
    }
  }
}

async function outcome(type: RestTradeType, response: Response, nowMs: number): Promise<RestOutcome> {
  const usedWeight = usedWeightOf(response)
  if (response.ok) return { kind: 'rows', rows: parseRows(type, await response.json()), usedWeight }
  return { kind: 'refused', refusal: await refusalOfResponse(response, nowMs), usedWeight }
}

function usedWeightOf(response: Response): number | null {
  const header = response.headers.get('x-mbx-used-weight-1m') ?? ''
  return /^\d+$/.test(header) ? Number(header) : null
}

function parseRows(type: RestTradeType, body: unknown): RestTrade[] {
  if (type === 'trade') {
    return z
      .array(TRADE)
      .parse(body)
      .map((row) => ({
        id: row.id,
        price: row.price,
        quantity: row.qty,
        timeMs: row.time,
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
      timeMs: row.T,
      isBuyerMaker: row.m,
      isBestMatch: row.M,
      trades: { from: row.f, to: row.l },
    }))
}
