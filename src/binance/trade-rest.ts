import { z } from 'zod'
import { describeError } from '../errors.ts'
import type { IdRange } from '../market/id-ranges.ts'

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
 * - `rows`: answered; rows rise by id. `usedWeight` is what the whole IP has used this minute, where the exchange says.
 * - `wait`: told to come back (429, 418), or turned away by the firewall (403).
 * - `refused`: this region is not served (451); asking again is pointless.
 * - `failed`: no answer, a server error, or one that makes no sense.
 */
export type RestOutcome =
  | { readonly kind: 'rows'; readonly rows: readonly RestTrade[]; readonly usedWeight: number | null }
  | { readonly kind: 'wait'; readonly waitMs: number; readonly status: number }
  | { readonly kind: 'refused' }
  | { readonly kind: 'failed'; readonly reason: string }

export type RestTradeType = 'trade' | 'aggTrade'

/** Rows in one answer, at most. */
export const REST_LIMIT = 1000

/** What a request costs of the 6,000 that an IP has a minute. */
export const REST_WEIGHT: Readonly<Record<RestTradeType, number>> = { trade: 25, aggTrade: 4 }

const TIMEOUT_MS = 10_000

/** Without a Retry-After: the exchange counts by the minute. */
const DEFAULT_WAIT_MS = 60_000
/** The firewall lifts its bar after a while it does not tell. */
const FIREWALL_WAIT_MS = 5 * 60_000

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

/** How the exchange's trades are asked for. `fromId` null: the latest. */
export type FetchTrades = (request: {
  readonly type: RestTradeType
  readonly symbol: string
  readonly fromId: number | null
  readonly limit: number
}) => Promise<RestOutcome>

/** Asks over HTTP: `historicalTrades` and `aggTrades`. Never rejects. */
export function tradeRest(restUrl: string): FetchTrades {
  return async ({ type, symbol, fromId, limit }) => {
    const query = new URLSearchParams({ symbol, limit: String(limit) })
    if (fromId !== null) query.set('fromId', String(fromId))
    const path = type === 'trade' ? 'historicalTrades' : 'aggTrades'
    try {
      const response = await fetch(`${restUrl}/api/v3/${path}?${query}`, {
        signal: AbortSignal.timeout(TIMEOUT_MS),
      })
      return await outcome(type, response)
    } catch (error) {
      return {
        kind: 'failed',
        reason: describeError(error instanceof Error ? (error.cause ?? error) : error),
      }
    }
  }
}

async function outcome(type: RestTradeType, response: Response): Promise<RestOutcome> {
  if (response.ok) {
    const used = Number(response.headers.get('x-mbx-used-weight-1m') ?? Number.NaN)
    return {
      kind: 'rows',
      rows: parseRows(type, await response.json()),
      usedWeight: Number.isFinite(used) ? used : null,
    }
  }
  await response.body?.cancel()
  if (response.status === 451) return { kind: 'refused' }
  const waits: Readonly<Record<number, number>> = {
    429: DEFAULT_WAIT_MS,
    418: DEFAULT_WAIT_MS,
    403: FIREWALL_WAIT_MS,
  }
  const waitMs = waits[response.status]
  if (waitMs === undefined) return { kind: 'failed', reason: `HTTP ${response.status}` }
  const retryAfter = Number(response.headers.get('retry-after') ?? Number.NaN)
  return {
    kind: 'wait',
    waitMs: Number.isFinite(retryAfter) ? retryAfter * 1000 : waitMs,
    status: response.status,
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
