import { isUtf8 } from 'node:buffer'
import type { FetchedMessage } from '../kafka/fetched-message.ts'
import { HEADER, headerText, readEpoch, type SchemaName, schemaHeader } from '../kafka/headers.ts'
import { schemaOf, VALUE_MAX_BYTES } from '../kafka/schema-of.ts'
import { EVENT_TYPES, type EventType, SCHEMA_VERSION } from '../market/event.ts'
import { ABSENT, EventFields, type KnownSymbol } from '../market/event-fields.ts'
import { EventScanner } from '../market/event-scanner.ts'
import { isTimeUs } from '../market/fields.ts'
import { GAP, type Gap } from '../market/gap.ts'
import {
  type AggTradePayload,
  type BookTickerPayload,
  type Fields,
  INVALIDATED,
  isFields,
  readAggTrade,
  readBookTicker,
  readTrade,
  type TradePayload,
} from '../market/payload.ts'

const NOT_STAMPED = 'ingestion_timestamp_us is not a time in microseconds'

/** What a topic holds. */
export type TopicKind = 'trades' | 'bookTicker' | 'gaps' | 'deadLetters'

const SCHEMAS_OF: Readonly<Record<Exclude<TopicKind, 'deadLetters'>, readonly SchemaName[]>> = {
  trades: ['trade', 'aggTrade'],
  bookTicker: ['bookTicker'],
  gaps: ['gap'],
}

const SCHEMA_TYPES = new Map(EVENT_TYPES.map((type) => [schemaHeader(type), type]))

/** Reads messages. What it has read stays in its fields until the next one. */
export class Decoder {
  /** Of a message of `trades` or `bookTicker`. */
  readonly event = new EventFields()
  /** Of a message of `gaps`. */
  gap: Gap | null = null
  readonly #scanner = new EventScanner(this.event)

  /**
   * Reads a message's row.
   *
   * @returns null when it was read, else the reason it cannot be stored: a short stable text that names the field
   * @throws TapelineError `SCHEMA` when the message is of a newer schema than this program knows: that is no fault
   *   of the message, and it must not be skipped
   */
  decode(kind: Exclude<TopicKind, 'deadLetters'>, message: FetchedMessage): string | null {
    const { bytes, start, end } = message
    if (bytes === null) return 'value is null'
    if (end === start) return 'value is empty'
    if (end - start > VALUE_MAX_BYTES) return `value is longer than ${VALUE_MAX_BYTES} bytes`
    const headers = headersOf(message)
    if (kind !== 'gaps' && this.#scan(kind, bytes, start, end, headers)) return null
    return this.#parse(kind, bytes.subarray(start, end), headers)
  }

  /** @returns false when the message is none that can be read from its bytes alone: nothing is said of it then */
  #scan(kind: 'trades' | 'bookTicker', bytes: Buffer, start: number, end: number, headers: Headers): boolean {
    const { event } = this
    if (headers.epoch === null || !this.#scanner.readStamped(bytes, start, end)) return false
    event.epoch = kind === 'trades' ? headers.epoch : 0
    return (
      (headers.type === event.type || headers.schema === null) &&
      (event.type === 'bookTicker') === (kind === 'bookTicker')
    )
  }

  #parse(kind: Exclude<TopicKind, 'deadLetters'>, value: Buffer, { schema, epoch }: Headers): string | null {
    if (!isUtf8(value)) return 'value is not UTF-8'
    const data = parse(value)
    if (data === undefined) return 'value is not JSON'
    if (!isFields(data)) return 'value is not an object'
    switch (schemaOf(SCHEMAS_OF[kind], schema, data)) {
      case 'trade':
        return this.#trade(readTrade(data), data, epoch)
      case 'aggTrade':
        return this.#aggTrade(readAggTrade(data), data, epoch)
      case 'bookTicker':
        return this.#bookTicker(readBookTicker(data), data)
      case 'gap':
        return this.#gap(data)
      case null:
        return 'schema is not one of this topic'
    }
  }

  #trade(trade: TradePayload | string, data: Fields, epoch: number | null): string | null {
    if (typeof trade === 'string') return trade
    const { event } = this
    event.type = 'trade'
    event.id = trade.t
    event.firstTradeId = ABSENT
    event.lastTradeId = ABSENT
    return this.#restOfTrade(trade, data, epoch)
  }

  #aggTrade(trade: AggTradePayload | string, data: Fields, epoch: number | null): string | null {
    if (typeof trade === 'string') return trade
    const { event } = this
    event.type = 'aggTrade'
    event.id = trade.a
    event.firstTradeId = trade.f === INVALIDATED ? ABSENT : trade.f
    event.lastTradeId = trade.l === INVALIDATED ? ABSENT : trade.l
    return this.#restOfTrade(trade, data, epoch)
  }

  #restOfTrade(
    trade: Omit<TradePayload, 't'> | Omit<AggTradePayload, 'a'>,
    data: Fields,
    epoch: number | null,
  ): string | null {
    const { ingestion_timestamp_us: receivedUs, source } = data
    if (!isTimeUs(receivedUs)) return NOT_STAMPED
    if (source !== undefined && source !== 'backfill') return 'source is not backfill'
    if (epoch === null) return 'epoch is not a number'
    const { event } = this
    event.symbol = symbolOf(trade.s)
    event.eventTimeMs = trade.E ?? ABSENT
    event.tradeTimeMs = trade.T
    event.isBuyerMaker = trade.m
    event.setDecimals(trade.p, trade.q)
    event.receivedUs = receivedUs
    event.isBackfill = source === 'backfill'
    event.epoch = epoch
    return null
  }

  #bookTicker(quote: BookTickerPayload | string, data: Fields): string | null {
    if (typeof quote === 'string') return quote
    const receivedUs = data['ingestion_timestamp_us']
    if (!isTimeUs(receivedUs)) return NOT_STAMPED
    const { event } = this
    event.type = 'bookTicker'
    event.id = quote.u
    event.symbol = symbolOf(quote.s)
    event.setDecimals(quote.b, quote.B, quote.a, quote.A)
    event.receivedUs = receivedUs
    event.isBackfill = false
    event.epoch = 0
    return null
  }

  #gap(data: Fields): string | null {
    const parsed = GAP.safeParse(data)
    if (!parsed.success) {
      return `${parsed.error.issues[0]?.path.join('.') || 'the whole'} does not fit gap/${SCHEMA_VERSION}`
    }
    this.gap = parsed.data
    return null
  }
}

interface Headers {
  readonly schema: string | null
  /** The type of event whose schema of today it is; null for any other, and where there is none. */
  readonly type: EventType | null
  /** How often the exchange had begun the id sequence anew; null for a header that says no such number. */
  readonly epoch: number | null
}

/** What was read of headers before: those of most messages are one and the same object. */
const readHeaders = new WeakMap<FetchedMessage['headers'], Headers>()

function headersOf({ headers }: FetchedMessage): Headers {
  const known = readHeaders.get(headers)
  if (known !== undefined) return known
  const schema = headerText(headers, HEADER.schema)
  const epoch = headerText(headers, HEADER.epoch)
  const type = SCHEMA_TYPES.get(schema ?? '') ?? null
  const read = { schema, type, epoch: epoch === null ? 0 : readEpoch(epoch) }
  readHeaders.set(headers, read)
  return read
}

/** Of a symbol that has been checked. */
function symbolOf(text: string): KnownSymbol {
  return { text, bytes: Buffer.from(text) }
}

/** Of a field that comes twice the last counts, as for every reader of JSON; our own stamps stand last. */
function parse(value: Buffer): unknown {
  try {
    return JSON.parse(value.toString())
  } catch {
    return undefined
  }
}
