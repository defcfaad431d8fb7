import { z } from 'zod'
import type { IdRange } from '../market/id-ranges.ts'
import { describeError } from '../runtime/errors.ts'
import { OUTSIDE_TEXT_MAX, outsideText } from '../runtime/outside-text.ts'
import { fetchByProxy } from './proxy.ts'
import { retryAfterMs } from './retry-after.ts'

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
 * - `wait`: told to come back (429, 418), or turned away by the firewall (403).
 * - `refused`: this region is not served (451).
 * - `rejected`: any other 4xx but 408: the same request would be answered the same. `reason` is one line with the
 *   exchange's own message.
 * - `failed`: no answer, a server error, or one that makes no sense.
 */
export type RestOutcome = (
  | { readonly kind: 'rows'; readonly rows: readonly RestTrade[] }
  | { readonly kind: 'wait'; readonly waitMs: number; readonly status: number }
  | { readonly kind: 'refused' }
  | { readonly kind: 'rejected'; readonly reason: string }
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

/**
 * Where Retry-After says nothing: the exchange counts by the minute, its shortest ban lasts two, and the firewall
 * lifts its bar after a while it does not tell.
 */
const DEFAULT_WAIT_MS: Readonly<Record<number, number>> = {
  429: 60_000,
  418: 2 * 60_000,
  403: 5 * 60_000,
}

const ERROR_BODY = z.object({ code: z.int(), msg: z.string() })

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
 * @param wallMs milliseconds since the Unix epoch, for a Retry-After that is a date
 */
export function tradeRest(restUrl: string, wallMs: () => number): FetchTrades {
  return async ({ type, symbol, fromId, limit }, signal) => {
    const query = new URLSearchParams({ symbol, limit: String(limit) })
    if (fromId !== null) query.set('fromId', String(fromId))
    const path = type === 'trade' ? 'historicalTrades' : 'aggTrades'
    try {
      const response = await fetchByProxy(`${restUrl}/api/v3/${path}?${query}`, {
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
  const { status } = response
  if (response.ok) return { kind: 'rows', rows: parseRows(type, await response.json()), usedWeight }
  const defaultWaitMs = DEFAULT_WAIT_MS[status]
  const isRejected =
    defaultWaitMs === undefined && status >= 400 && status < 500 && ![408, 451].includes(status)
  if (isRejected) return { kind: 'rejected', reason: await rejection(response), usedWeight }
  await response.body?.cancel()
  if (status === 451) return { kind: 'refused', usedWeight }
  if (defaultWaitMs === undefined) return { kind: 'failed', reason: `HTTP ${status}`, usedWeight }
  const waitMs = retryAfterMs(response.headers.get('retry-after'), nowMs) ?? defaultWaitMs
  return { kind: 'wait', waitMs, status, usedWeight }
}

function usedWeightOf(response: Response): number | null {
  const header = response.headers.get('x-mbx-used-weight-1m') ?? ''
  return /^\d+$/.test(header) ? Number(header) : null
}

/** The status and what the exchange says of it, where its body is its own (`{"code":-1121,"msg":"Invalid symbol."}`). */
async function rejection(response: Response): Promise<string> {
  const status = `HTTP ${response.status}`
  const body = ERROR_BODY.safeParse(parseJson(await response.text()))
  if (!body.success) return status
  const { code, msg } = body.data
  // The ledger takes no longer reason, and the code tells most.
  const end = ` (${code})`
  return `${outsideText(`${status}: ${msg}`, OUTSIDE_TEXT_MAX - end.length)}${end}`
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // A page of some proxy.
    return undefined
  }
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
