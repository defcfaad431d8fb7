import { type EventType, eventTypeOf } from '../market/event.ts'
import {
  type AggTradePayload,
  type BookTickerPayload,
  type Fields,
  isFields,
  readAggTrade,
  readBookTicker,
  readTrade,
  type TradePayload,
} from '../market/payload.ts'
import { memberText } from './json-member.ts'

/**
 * What a frame of a combined stream is.
 *
 * Shapes after the exchange's "WebSocket Streams" documentation: market data comes in the envelope
 * `{"stream":…,"data":{…}}`; answers to SUBSCRIBE and errors come outside it; `serverShutdown` may come either way.
 */
export type Frame =
  | {
      readonly kind: 'event'
      readonly type: EventType
      readonly stream: string
      readonly symbol: string
      readonly payload: TradePayload | AggTradePayload | BookTickerPayload
      /** The text of the data object, byte for byte as it came. */
      readonly json: string
    }
  | {
      readonly kind: 'control'
      readonly control: 'answer' | 'error' | 'serverShutdown'
      readonly detail: string
    }
  | { readonly kind: 'ignored'; readonly reason: string }
  | { readonly kind: 'rejected'; readonly reason: string }

/** Bytes of a rejected frame that its dead letter keeps; a longer one is cut there. */
export const KEPT_FRAME_BYTES = 800_000

const READERS = { trade: readTrade, aggTrade: readAggTrade, bookTicker: readBookTicker }

/**
 * Interprets a frame. Total: whatever came, the answer is one of the four kinds.
 *
 * @param value what `JSON.parse` made of the text; undefined when it is not JSON
 */
export function interpretFrame(value: unknown, text: string): Frame {
  if (!isFields(value))
    return { kind: 'rejected', reason: value === undefined ? 'not JSON' : 'not an object' }
  const { stream, data } = value
  if (typeof stream !== 'string') return interpretBare(value, text)
  if (stream === '!serverShutdown') return { kind: 'control', control: 'serverShutdown', detail: text }
  const type = eventTypeOf(stream)
  if (type === null) return { kind: 'ignored', reason: 'stream type not taken' }
  if (!isFields(data)) return { kind: 'rejected', reason: 'data is not an object' }
  const payload = READERS[type](data)
  if (typeof payload === 'string') return { kind: 'rejected', reason: payload }
  const symbol = payload.s
  if (stream.length !== symbol.length + 1 + type.length || !stream.startsWith(symbol.toLowerCase())) {
    return { kind: 'rejected', reason: 's is not the symbol of the stream' }
  }
  return { kind: 'event', type, stream, symbol, payload, json: dataText(text, stream) }
}

/** Frames outside the envelope. */
function interpretBare(value: Fields, text: string): Frame {
  if (value['e'] === 'serverShutdown') return { kind: 'control', control: 'serverShutdown', detail: text }
  if ('error' in value || ('code' in value && 'msg' in value))
    return { kind: 'control', control: 'error', detail: text }
  if ('result' in value) return { kind: 'control', control: 'answer', detail: text }
  return { kind: 'ignored', reason: 'no envelope' }
}

/**
 * Cuts the data object out of the envelope. The usual envelope is cut at known places: the three payloads are
 * flat, so the first closing brace must be the object's own; any other layout goes through the scanner.
 */
function dataText(text: string, stream: string): string {
  const start = stream.length + 20
  if (text.startsWith('","data":{', stream.length + 11) && text.startsWith('{"stream":"')) {
    const end = text.indexOf('}', start)
    if (end === text.length - 2 && text.endsWith('}}')) return text.slice(start, end + 1)
  }
  const json = memberText(text, 'data')
  if (json === null) throw new Error(`No data member in ${text}`)
  return json
}

/** The stamped message: the exchange's own bytes with the two receipt times appended. */
export function withReceiptStamp(json: string, receiptMs: number, receiptUs: number): string {
  return json.slice(0, -1) + receiptTail(receiptMs, receiptUs)
}

/** What takes the place of the object's closing brace. */
export function receiptTail(receiptMs: number, receiptUs: number): string {
  return `,"ingestion_timestamp":${receiptMs},"ingestion_timestamp_us":${receiptUs}}`
}
