import { isUtf8 } from 'node:buffer'
import { HEADER, headerText, readEpoch, type SchemaName } from '../kafka/headers.ts'
import type { FetchedRecord } from '../kafka/partition-fetcher.ts'
import { schemaOf, VALUE_MAX_BYTES } from '../kafka/schema-of.ts'
import { SCHEMA_VERSION } from '../market/event.ts'
import { isTimeUs } from '../market/fields.ts'
import { GAP } from '../market/gap.ts'
import {
  type AggTradePayload,
  type Fields,
  INVALIDATED,
  isFields,
  readAggTrade,
  readBookTicker,
  readTrade,
  type TradePayload,
} from '../market/payload.ts'
import type { Batch } from './batch.ts'

const NOT_STAMPED = 'ingestion_timestamp_us is not a time in microseconds'

/** What a topic holds. */
export type TopicKind = 'trades' | 'bookTicker' | 'gaps' | 'deadLetters'

const SCHEMAS_OF: Readonly<Record<Exclude<TopicKind, 'deadLetters'>, readonly SchemaName[]>> = {
  trades: ['trade', 'aggTrade'],
  bookTicker: ['bookTicker'],
  gaps: ['gap'],
}

/**
 * Adds a message's row to the batch.
 *
 * @returns null when it was added, else the reason it cannot be stored: a short stable text that names the field
 * @throws TapelineError `SCHEMA` when the message is of a newer schema than this program knows: that is no fault
 *   of the message, and it must not be skipped
 */
export function decodeInto(
  batch: Batch,
  kind: Exclude<TopicKind, 'deadLetters'>,
  record: FetchedRecord,
): string | null {
  const { value } = record
  if (value === null) return 'value is null'
  if (value.length === 0) return 'value is empty'
  if (value.length > VALUE_MAX_BYTES) return `value is longer than ${VALUE_MAX_BYTES} bytes`
  if (!isUtf8(value)) return 'value is not UTF-8'
  const data = parse(value)
  if (data === undefined) return 'value is not JSON'
  if (!isFields(data)) return 'value is not an object'
  const { schema: named, epoch } = headersOf(record)
  const schema = schemaOf(SCHEMAS_OF[kind], named, data)
  switch (schema) {
    case 'trade':
      return addTrade(batch, data, epoch)
    case 'aggTrade':
      return addAggTrade(batch, data, epoch)
    case 'bookTicker':
      return addBookTicker(batch, data)
    case 'gap':
      return addGap(batch, data)
    case null:
      return 'schema is not one of this topic'
  }
}

interface Headers {
  readonly schema: string | null
  /** How often the exchange had begun the id sequence anew; null for a header that says no such number. */
  readonly epoch: number | null
}

/** What was read of headers before: those of most messages are one and the same object. */
const readHeaders = new WeakMap<FetchedRecord['headers'], Headers>()

function headersOf({ headers }: FetchedRecord): Headers {
  const known = readHeaders.get(headers)
  if (known !== undefined) return known
  const epoch = headerText(headers, HEADER.epoch)
  const read = { schema: headerText(headers, HEADER.schema), epoch: epoch === null ? 0 : readEpoch(epoch) }
  readHeaders.set(headers, read)
  return read
}

function addTrade(batch: Batch, data: Fields, epoch: number | null): string | null {
  const trade = readTrade(data)
  if (typeof trade === 'string') return trade
  const fault = addCommon(batch, trade, data, 'trade', epoch)
  if (fault !== null) return fault
  batch.trades.tradeId.push(trade.t)
  batch.trades.firstTradeId.push(null)
  batch.trades.lastTradeId.push(null)
  return null
}

function addAggTrade(batch: Batch, data: Fields, epoch: number | null): string | null {
  const trade = readAggTrade(data)
  if (typeof trade === 'string') return trade
  const fault = addCommon(batch, trade, data, 'aggTrade', epoch)
  if (fault !== null) return fault
  batch.trades.tradeId.push(trade.a)
  batch.trades.firstTradeId.push(trade.f === INVALIDATED ? null : trade.f)
  batch.trades.lastTradeId.push(trade.l === INVALIDATED ? null : trade.l)
  return null
}

/** Adds nothing when it answers a fault. */
function addCommon(
  batch: Batch,
  trade: Omit<TradePayload, 't'> | Omit<AggTradePayload, 'a'>,
  data: Fields,
  type: 'trade' | 'aggTrade',
  epoch: number | null,
): string | null {
  const { ingestion_timestamp_us: receivedUs, source } = data
  if (!isTimeUs(receivedUs)) return NOT_STAMPED
  if (source !== undefined && source !== 'backfill') return 'source is not backfill'
  if (epoch === null) return 'epoch is not a number'
  const columns = batch.trades
  columns.epoch.push(epoch)
  columns.tradeTimeMs.push(trade.T)
  columns.eventTimeMs.push(trade.E)
  columns.symbol.push(trade.s)
  columns.eventType.push(type)
  columns.price.push(trade.p)
  columns.quantity.push(trade.q)
  columns.isBuyerMaker.push(trade.m ? 't' : 'f')
  columns.ingestionUs.push(receivedUs)
  columns.source.push(source ?? 'stream')
  return null
}

function addBookTicker(batch: Batch, data: Fields): string | null {
  const quote = readBookTicker(data)
  if (typeof quote === 'string') return quote
  const receivedUs = data['ingestion_timestamp_us']
  if (!isTimeUs(receivedUs)) return NOT_STAMPED
  const columns = batch.bookTicker
  columns.ingestionUs.push(receivedUs)
  columns.symbol.push(quote.s)
  columns.updateId.push(quote.u)
  columns.bidPrice.push(quote.b)
  columns.bidQuantity.push(quote.B)
  columns.askPrice.push(quote.a)
  columns.askQuantity.push(quote.A)
  return null
}

function addGap(batch: Batch, data: Fields): string | null {
  const parsed = GAP.safeParse(data)
  if (!parsed.success) {
    return `${parsed.error.issues[0]?.path.join('.') || 'the whole'} does not fit gap/${SCHEMA_VERSION}`
  }
  batch.gapRows.push(parsed.data)
  return null
}

/** Of a field that comes twice the last counts, as for every reader of JSON; our own stamps stand last. */
function parse(value: Buffer): unknown {
  try {
    return JSON.parse(value.toString())
  } catch {
    return undefined
  }
}
