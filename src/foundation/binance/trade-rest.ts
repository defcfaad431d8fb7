import { z } from 'zod'
import { byTradeType, declarationOf, ROLES, type Role, restOf, type TradeType } from '../market/event.ts'
import { isTime } from '../market/fields.ts'
import type { IdRange } from '../market/id-ranges.ts'
import {
  exchangeTimeUnit,
  MICROSECONDS_IN,
  TIME_UNIT_HEADER,
  TIME_UNITS,
  type TimeUnit,
} from '../market/time-unit.ts'
import { askRest, type NoAnswer } from './rest-answer.ts'
import { otherUnit } from './venue.ts'

/** A row of REST, with the fields of the stream's payload except the event time `E`. */
export interface RestTrade {
  readonly id: number
  readonly price: string
  readonly quantity: string
  readonly timeUs: number
  readonly isBuyerMaker: boolean
  /** The exchange's `M`, which is passed on; false where the row has none. */
  readonly isBestMatch: boolean
  /** The trades that an aggTrade covers; null for other types. */
  readonly trades: IdRange | null
}

/** The outcome of a request: rows in ascending order of id, or why there are none. */
export type RestOutcome =
  | { readonly kind: 'rows'; readonly rows: readonly RestTrade[]; readonly usedWeight?: number | null }
  | NoAnswer

/** Maximum rows in one answer. */
export const REST_LIMIT = 1000

/** `fromId` null requests the latest trades, which not every type offers (`hasLatest`). `limit` is at most `REST_LIMIT`. */
export interface TradeRequest {
  readonly type: TradeType
  readonly symbol: string
  readonly fromId: number | null
  readonly limit: number
}

/** Requests trades. Never rejects; a request is aborted with the signal. */
export type FetchTrades = (request: TradeRequest, signal: AbortSignal) => Promise<RestOutcome>

/**
 * @param wallMs milliseconds since the Unix epoch, for a Retry-After with a date
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
    const { path, isKeyed } = restOf(type)
    const headers = { [TIME_UNIT_HEADER]: exchangeTimeUnit(unit) }
    const how: RequestInit =
      isKeyed && apiKey !== undefined
        ? // A redirect would send the key to another host.
          { headers: { ...headers, 'X-MBX-APIKEY': apiKey }, redirect: 'manual' }
        : { headers }
    const read = (body: unknown, usedWeight: number | null): RestOutcome => ({
      kind: 'rows',
      rows: parseRows(type, unit, body),
      usedWeight,
    })
    return askRest({ restUrl, wallMs, source }, `${path}?${query}`, how, read, signal)
  }
}

/** Returns microseconds. Rows in the other unit would be stored again, beside those of the stream. */
function timeUs(time: number, unit: TimeUnit): number {
  if (isTime(time, unit)) return time * MICROSECONDS_IN[unit]
  const other = TIME_UNITS.find((one) => isTime(time, one))
  if (other === undefined) throw new Error(`${time} is no time`)
  const { message, fix } = otherUnit('REST', other, unit)
  throw new Error(`${message}. ${fix}`)
}

const KINDS: Partial<Record<(typeof ROLES)[Role]['kind'], z.ZodType>> = {
  id: z.int(),
  tiles: z.int(),
  time: z.int(),
  decimal: z.string(),
  flag: z.boolean(),
  // As in events of a stream: what is not stored must not stop backfill.
  unused: z.unknown().optional(),
}

const rowSchemas = byTradeType((type) => {
  const { row } = restOf(type)
  const shape = Object.fromEntries(
    row.map(([name, role]) => {
      const { kind } = ROLES[role]
      const schema = KINDS[kind]
      if (schema === undefined) throw new Error(`A row of REST has no ${kind}`)
      return [name, schema]
    }),
  )
  return z.array(
    z
      .object(shape)
      .transform((values) => new Map<Role, unknown>(row.map(([name, role]) => [role, values[name]]))),
  )
})

function parseRows(type: TradeType, unit: TimeUnit, body: unknown): RestTrade[] {
  return rowSchemas[type].parse(body).map((row) => ({
    id: Number(row.get('id')),
    price: String(row.get('price')),
    quantity: String(row.get('quantity')),
    timeUs: timeUs(Number(row.get('tradeTime')), unit),
    isBuyerMaker: row.get('isBuyerMaker') === true,
    isBestMatch: row.get('unused') === true,
    trades: row.has('firstTradeId')
      ? { from: Number(row.get('firstTradeId')), to: Number(row.get('lastTradeId')) }
      : null,
  }))
}

/** Returns a trade as the stream's fields, marked as backfilled, without the event time, which REST lacks. */
export function backfillJson(
  symbol: string,
  type: TradeType,
  trade: RestTrade,
  unit: TimeUnit,
  receiptMs: number,
  receiptUs: number,
): string {
  const values: Readonly<Partial<Record<Role, unknown>>> = {
    type,
    symbol,
    id: trade.id,
    price: trade.price,
    quantity: trade.quantity,
    firstTradeId: trade.trades?.from,
    lastTradeId: trade.trades?.to,
    tradeTime: trade.timeUs / MICROSECONDS_IN[unit],
    isBuyerMaker: trade.isBuyerMaker,
    unused: trade.isBestMatch,
  }
  const fields = declarationOf(type).layout.map(([name, role]) => [name, Reflect.get(values, role)])
  const stamp = { source: 'backfill', ingestion_timestamp: receiptMs, ingestion_timestamp_us: receiptUs }
  return JSON.stringify({ ...Object.fromEntries(fields), ...stamp })
}
