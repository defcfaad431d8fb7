import { isUtf8 } from 'node:buffer'
import type { FetchedMessage } from '../../foundation/kafka/codec/fetched-message.ts'
import { HEADER, headerText, NOT_AN_EPOCH, readEpoch } from '../../foundation/kafka/headers.ts'
import type { Position } from '../../foundation/kafka/position.ts'
import { schemaOf, VALUE_MAX_BYTES } from '../../foundation/kafka/schema-of.ts'
import { isTimeUs } from '../../foundation/market/fields.ts'
import {
  type AggTradePayload,
  type Fields,
  INVALIDATED,
  isFields,
  readAggTrade,
  readBookTicker,
  readTrade,
  type TradePayload,
} from '../../foundation/market/payload.ts'
import { MICROSECONDS_IN } from '../../foundation/market/time-unit.ts'
import type { MarketEvent, OfTrades, Received } from './market-event.ts'

/**
 * Decodes the event of a message.
 *
 * @returns a short text that names the missing or wrong field when it is not an event
 * @throws TapelineError `SCHEMA` when it has a newer schema than this version knows
 */
export function readEvent(
  allowed: ReadonlyArray<MarketEvent['type']>,
  message: Pick<FetchedMessage, 'value' | 'headers'>,
  position: Position,
): MarketEvent | string {
  const { value, headers } = message
  if (value === null) return 'value is null'
  if (value.length > VALUE_MAX_BYTES) return `value is longer than ${VALUE_MAX_BYTES} bytes`
  if (!isUtf8(value)) return 'value is not UTF-8'
  const data = parse(value)
  if (!isFields(data)) return data === undefined ? 'value is not JSON' : 'value is not an object'
  const { ingestion_timestamp_us: ingestionTimestampUs } = data
  const schema = schemaOf(allowed, headerText(headers, HEADER.schema), data)
  if (!isTimeUs(ingestionTimestampUs)) return 'ingestion_timestamp_us is not a time in microseconds'
  const received = { ingestionTimestampUs, position }
  switch (schema?.name) {
    case 'trade': {
      const trade = readTrade(data, schema?.unit)
      if (typeof trade === 'string') return trade
      const shared = ofTrades(trade, data, message)
      return typeof shared === 'string' ? shared : { type: 'trade', tradeId: trade.t, ...shared, ...received }
    }
    case 'aggTrade': {
      const trade = readAggTrade(data, schema?.unit)
      if (typeof trade === 'string') return trade
      const shared = ofTrades(trade, data, message)
      if (typeof shared === 'string') return shared
      const [firstTradeId, lastTradeId] = trade.f === INVALIDATED ? [null, null] : [trade.f, trade.l]
      return { type: 'aggTrade', aggTradeId: trade.a, firstTradeId, lastTradeId, ...shared, ...received }
    }
    case 'bookTicker': {
      const quote = readBookTicker(data)
      if (typeof quote === 'string') return quote
      return {
        type: 'bookTicker',
        symbol: quote.s,
        updateId: quote.u,
        bidPrice: quote.b,
        bidQuantity: quote.B,
        askPrice: quote.a,
        askQuantity: quote.A,
        ...received,
      }
    }
    default:
      return 'schema is not one of this topic'
  }
}

function ofTrades(
  { s, p, q, T, E, m, unit }: Omit<TradePayload, 't'> | Omit<AggTradePayload, 'a'>,
  { source }: Fields,
  { headers }: Pick<FetchedMessage, 'headers'>,
): (Omit<OfTrades, keyof Received> & Pick<Received, 'symbol'>) | string {
  if (source !== undefined && source !== 'backfill') return 'source is not backfill'
  const epoch = readEpoch(headerText(headers, HEADER.epoch) ?? '0')
  if (epoch === null) return NOT_AN_EPOCH
  return {
    symbol: s,
    price: p,
    quantity: q,
    tradeTimeUs: T * MICROSECONDS_IN[unit],
    eventTimeUs: E === null ? null : E * MICROSECONDS_IN[unit],
    isBuyerMaker: m,
    epoch,
    source: source ?? 'stream',
  }
}

function parse(value: Buffer): unknown {
  try {
    return JSON.parse(value.toString())
  } catch {
    return undefined
  }
}
