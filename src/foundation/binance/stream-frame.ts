import { isUtf8 } from 'node:buffer'
import { eventTypeOf, hasTimes, type StreamType, streamName } from '../market/event.ts'
import { EventFields } from '../market/event-fields.ts'
import { EventScanner } from '../market/event-scanner.ts'
import { isSymbol } from '../market/fields.ts'
import { type Fields, isFields, readPayload } from '../market/payload.ts'
import type { TimeUnit } from '../market/time-unit.ts'
import { type ByteSlice, SharedBytes } from '../runtime/bytes.ts'
import { parseJson } from '../runtime/outside-text.ts'
import { memberText } from './json-member.ts'

/**
 * A parsed frame of a combined stream, after the exchange's "WebSocket Streams" documentation: market data
 * comes in the envelope `{"stream":…,"data":{…}}`; answers to SUBSCRIBE and errors come outside it;
 * `serverShutdown` may come either way.
 */
export type Frame =
  | EventFrame
  | {
      readonly kind: 'control'
      readonly control: 'answer' | 'error' | 'serverShutdown'
      readonly detail: string
    }
  | { readonly kind: 'ignored'; readonly reason: string }
  | { readonly kind: 'rejected'; readonly reason: string }
  /** An event with times in this unit, which was not requested. */
  | { readonly kind: 'other unit'; readonly unit: TimeUnit }

export interface EventFrame {
  readonly kind: 'event'
  readonly stream: string
  /** That of the event. */
  readonly type: StreamType
  readonly event: Readonly<EventFields>
  /** The data object, byte for byte as received. */
  readonly data: ByteSlice
}

/** Bytes of a rejected frame that its dead letter keeps; longer frames are truncated. */
export const KEPT_FRAME_BYTES = 800_000

/** The exchange's frames have a few hundred bytes, answers some thousand. Longer frames are rejected. */
export const FRAME_MAX_BYTES = 64 << 10

/** Members that only Tapeline adds, with the origin and receipt of a message. */
const OWN_MEMBERS = ['source', 'ingestion_timestamp', 'ingestion_timestamp_us'] as const

const NOT_JSON = 'not JSON'
const NOT_UTF8 = 'not UTF-8'

interface KnownStream {
  readonly name: string
  readonly type: StreamType
  readonly symbol: string
}

const ENVELOPE = Buffer.from('{"stream":"')
const DATA = Buffer.from('","data":')
const QUOTE = 0x22
const CLOSING_BRACE = 0x7d

/** A symbol has at most 40 characters; the stream's type follows it. */
const STREAM_MAX_BYTES = 200

/** Reads frames: the usual layout from its bytes ({@link EventScanner}), others with `JSON.parse`. */
export class FrameReader {
  readonly #event = new EventFields()
  readonly #scanner = new EventScanner(this.#event)
  readonly #streams = new SharedBytes<KnownStream | null>(knownStream)
  readonly #unit: TimeUnit | null
  readonly #isOurs: boolean
  /** Events in another layout. */
  parsedEvents = 0

  /** @param unit of the times; null accepts both @param isOurs accepts members that only Tapeline writes */
  constructor(unit: TimeUnit | null, isOurs = false) {
    this.#unit = unit
    this.#isOurs = isOurs
  }

  /** Interprets any bytes. @returns for an event: fields that are valid until the next frame is read */
  read(bytes: Buffer): Frame {
    return this.#scan(bytes) ?? this.#parse(bytes)
  }

  /** Returns null if the frame is not an event in the exchange's layout. */
  #scan(bytes: Buffer): EventFrame | null {
    if (!holds(bytes, 0, ENVELOPE)) return null
    const nameEnd = bytes.indexOf(QUOTE, ENVELOPE.length)
    if (nameEnd < 0 || nameEnd > STREAM_MAX_BYTES || !holds(bytes, nameEnd, DATA)) return null
    const start = nameEnd + DATA.length
    const end = bytes.length - 1
    if (bytes[end] !== CLOSING_BRACE || !this.#scanner.readEvent(bytes, start, end)) return null
    const event = this.#event
    const stream = this.#streams.of(bytes, ENVELOPE.length, nameEnd)
    if (stream === null || stream.type !== event.type || stream.symbol !== event.symbol.text) return null
    if (this.#isOtherUnit(event)) return null
    return { kind: 'event', stream: stream.name, type: stream.type, event, data: { bytes, start, end } }
  }

  #parse(bytes: Buffer): Frame {
    if (bytes.length > FRAME_MAX_BYTES)
      return { kind: 'rejected', reason: `frame is longer than ${FRAME_MAX_BYTES} bytes` }
    // Its text would be another, so it could not be passed on byte for byte.
    if (!isUtf8(bytes)) return { kind: 'rejected', reason: NOT_UTF8 }
    const text = bytes.toString()
    const value = parseJson(text)
    if (!isFields(value))
      return { kind: 'rejected', reason: value === undefined ? NOT_JSON : 'not an object' }
    const { stream, data } = value
    if (typeof stream !== 'string') return interpretBare(value, text)
    if (stream === '!serverShutdown') return { kind: 'control', control: 'serverShutdown', detail: text }
    const type = eventTypeOf(stream)
    if (type === null) return { kind: 'ignored', reason: 'stream type not taken' }
    if (!isFields(data)) return { kind: 'rejected', reason: 'data is not an object' }
    const own = this.#isOurs ? undefined : OWN_MEMBERS.find((name) => Object.hasOwn(data, name))
    if (own !== undefined) return { kind: 'rejected', reason: `${own} is a member that only Tapeline writes` }
    const event = this.#event
    const reason = readPayload(type, data, event)
    if (reason !== null) return { kind: 'rejected', reason }
    const symbol = event.symbol.text
    if (stream !== streamName(symbol, type))
      return { kind: 'rejected', reason: 's is not the symbol of the stream' }
    if (this.#isOtherUnit(event)) return { kind: 'other unit', unit: event.timeUnit }
    const json = memberText(text, 'data')
    if (json === null) throw new Error(`No data member in ${text}`)
    this.parsedEvents++
    const copy = Buffer.from(json)
    return { kind: 'event', stream, type, event, data: { bytes: copy, start: 0, end: copy.length } }
  }

  #isOtherUnit({ type, timeUnit }: EventFields): boolean {
    return this.#unit !== null && timeUnit !== this.#unit && hasTimes(type)
  }
}

function holds(bytes: Uint8Array, at: number, expected: Uint8Array): boolean {
  if (at + expected.length > bytes.length) return false
  for (let i = 0; i < expected.length; i++) if (bytes[at + i] !== expected[i]) return false
  return true
}

/** Returns null for a stream of another type, or in another spelling than the exchange's. */
function knownStream(bytes: Buffer): KnownStream | null {
  const name = bytes.toString()
  const type = eventTypeOf(name)
  const symbol = name.slice(0, name.indexOf('@')).toUpperCase()
  return type !== null && isSymbol(symbol) && name === streamName(symbol, type)
    ? { name, type, symbol }
    : null
}

/** Interprets a frame without the envelope. */
function interpretBare(value: Fields, text: string): Frame {
  if (value['e'] === 'serverShutdown') return { kind: 'control', control: 'serverShutdown', detail: text }
  if ('error' in value || ('code' in value && 'msg' in value))
    return { kind: 'control', control: 'error', detail: text }
  if ('result' in value) return { kind: 'control', control: 'answer', detail: text }
  return { kind: 'ignored', reason: 'no envelope' }
}

/** Returns the stamped message: the exchange's bytes with the two receipt times appended. */
export function withReceiptStamp(json: string, receiptMs: number, receiptUs: number): string {
  return json.slice(0, -1) + receiptSuffix(receiptMs, receiptUs)
}

/** Returns the text that replaces the object's closing brace. */
export function receiptSuffix(receiptMs: number, receiptUs: number): string {
  return `,"ingestion_timestamp":${receiptMs},"ingestion_timestamp_us":${receiptUs}}`
}
