import assert from 'node:assert/strict'
import type { Batch } from '../../src/consumer/batch.ts'
import type { FetchedPartition } from '../../src/foundation/kafka/codec/fetch-api.ts'
import { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import { Decoder } from '../../src/foundation/kafka/message-decoder.ts'
import { declarationOf, type EventType, type Role } from '../../src/foundation/market/event.ts'
import type { EventFields } from '../../src/foundation/market/event-fields.ts'
import { type Gap, gapId } from '../../src/foundation/market/gap.ts'

const TRADE = {
  e: 'trade',
  E: 1723161255343,
  s: 'BTCUSDT',
  t: 1,
  p: '61837.63000000',
  q: '0.02000000',
  T: 1723161255342,
  m: true,
  M: true,
  ingestion_timestamp: 1723161255400,
  ingestion_timestamp_us: 1723161255400123,
}

/** A trade in Kafka's format; fields can be replaced, or removed with undefined. */
export function tradeValue(fields: Readonly<Record<string, unknown>> = {}): Buffer {
  return Buffer.from(JSON.stringify({ ...TRADE, ...fields }))
}

/** An aggTrade of one trade, with the same options. */
export function aggTradeValue(fields: Readonly<Record<string, unknown>> = {}): Buffer {
  return tradeValue({ e: 'aggTrade', t: undefined, a: 1, f: 1, l: 1, ...fields })
}

/** A bookTicker, with the same options. */
export function bookTickerValue(fields: Readonly<Record<string, unknown>> = {}): Buffer {
  const quote = {
    u: 1,
    s: 'BTCUSDT',
    b: '61837.63000000',
    B: '3.78826000',
    a: '61837.64000000',
    A: '1.54698000',
  }
  const { ingestion_timestamp, ingestion_timestamp_us } = TRADE
  return Buffer.from(JSON.stringify({ ...quote, ingestion_timestamp, ingestion_timestamp_us, ...fields }))
}

/** An event of any type in Kafka's format, with the same options. */
export function eventValue(type: EventType, fields: Readonly<Record<string, unknown>> = {}): Buffer {
  const byRole: Readonly<Record<Role, unknown>> = {
    ...{
      type: declarationOf(type).eventName,
      eventTime: TRADE.E,
      tradeTime: TRADE.T,
      symbol: TRADE.s,
      id: 1,
      price: TRADE.p,
    },
    ...{ quantity: TRADE.q, askPrice: TRADE.p, askQuantity: TRADE.q, firstTradeId: 1, lastTradeId: 1 },
    ...{ isBuyerMaker: true, unused: true, firstId: 1, limit: 5000 },
    ...{ bids: [[TRADE.p, TRADE.q]], asks: [] },
  }
  const { ingestion_timestamp, ingestion_timestamp_us } = TRADE
  const event = Object.fromEntries(declarationOf(type).layout.map(([name, role]) => [name, byRole[role]]))
  return Buffer.from(JSON.stringify({ ...event, ingestion_timestamp, ingestion_timestamp_us, ...fields }))
}

/** A message as returned by a fetch. */
export function record(
  value: Buffer | null,
  key: Buffer | null = null,
  headers: Readonly<Record<string, string>> = {},
): FetchedMessage {
  const named = Object.entries(headers).map(([name, text]): [Buffer, Buffer] => [
    Buffer.from(name),
    Buffer.from(text),
  ])
  return new FetchedMessage(0, key, named, value)
}

/** The id of every topic in {@link fetched}. */
export const TOPIC_ID = '0f0e0d0c-0b0a-0908-0706-050403020100'

/** A fetch response for one partition, whose messages begin at `from`. */
export function fetched(
  topic: string,
  partition: number,
  from: number,
  messages: readonly FetchedMessage[],
): FetchedPartition {
  const endOffset = from + messages.length
  return {
    topic,
    topicId: TOPIC_ID,
    partition,
    error: null,
    startOffset: 0,
    endOffset,
    nextOffset: endOffset,
    nextLeaderEpoch: -1,
    diverging: null,
    messages: messages.map((message, index) => messageAt(from + index, message)),
  }
}

/** The same message at another offset. */
export function messageAt(
  offset: number,
  { key, headers, bytes, start, end }: FetchedMessage,
): FetchedMessage {
  return new FetchedMessage(offset, key, headers, bytes, start, end)
}

/** The events of a batch's rows `[from, to)`, by default all. Each is valid until the next. */
export function* eventsOf(
  batch: Batch,
  table: 'trades' | 'book_ticker',
  from = 0,
  to = batch.rowCount(table),
): Generator<EventFields> {
  const decoder = new Decoder()
  for (const message of batch.origins[table].messages.slice(from, to)) {
    assert.equal(decoder.decode(table === 'trades' ? 'trades' : 'bookTicker', message), null)
    yield decoder.event
  }
}

/** A row of the ledger as ingestion writes it: by default an open gap of trades 5 to 9. */
export function gapRow(fields: Partial<Gap> = {}): Gap {
  const { symbol = 'BTCUSDT', event_type = 'trade', epoch = 0, from_id = 5, to_id = 9 } = fields
  const { status = 'open', detected_at = TRADE.E } = fields
  return {
    gap_id: gapId(symbol, event_type, epoch, from_id ?? 0),
    revision: status === 'open' ? 1 : 2,
    ...{ symbol, event_type, epoch, from_id, to_id, from_time: null, to_time: null },
    ...{ cause: 'reconnect', status, reason: null, detected_at, updated_at: detected_at },
    closed_at: status === 'open' ? null : detected_at,
    ...fields,
  }
}
