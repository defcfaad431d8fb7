import { isUtf8 } from 'node:buffer'
import {
  declarationOf,
  EVENT_TYPES,
  type EventTopic,
  type EventType,
  hasEpoch,
  hasTimes,
  isTradeType,
} from '../market/event.ts'
import { EventFields, LATE_SOURCES, lateSource } from '../market/event-fields.ts'
import { EventScanner } from '../market/event-scanner.ts'
import { isTimeUs } from '../market/fields.ts'
import { GAP, type Gap } from '../market/gap.ts'
import { type Fields, isFields, readPayload } from '../market/payload.ts'
import { RECORDING, type Recording } from '../market/recording.ts'
import { TIME_UNITS, type TimeUnit } from '../market/time-unit.ts'
import { parseJson } from '../runtime/outside-text.ts'
import type { FetchedMessage } from './codec/record-batch.ts'
import { HEADER, headerText, NOT_AN_EPOCH, readEpoch } from './headers.ts'
import { LATEST_SCHEMA, type SchemaName, schemaHeader, schemaOf, VALUE_MAX_BYTES } from './schema-of.ts'

const NOT_A_SOURCE = `source is neither ${LATE_SOURCES.join(' nor ')}`
const NOT_STAMPED = 'ingestion_timestamp_us is not a time in microseconds'

export type TopicKind = EventTopic | 'gaps' | 'deadLetters'

const SCHEMAS_OF: Readonly<Record<Exclude<TopicKind, 'deadLetters'>, readonly SchemaName[]>> = {
  trades: EVENT_TYPES.filter((type) => declarationOf(type).topic === 'trades'),
  bookTicker: EVENT_TYPES.filter((type) => declarationOf(type).topic === 'bookTicker'),
  depth: EVENT_TYPES.filter((type) => declarationOf(type).topic === 'depth'),
  gaps: ['gap', 'recording'],
}

const KNOWN_SCHEMAS = new Map(
  TIME_UNITS.flatMap((unit) => EVENT_TYPES.map((type) => [schemaHeader(type, unit), { type, unit }])),
)

/** Decodes messages. The results stay in the fields until the next message. */
export class Decoder {
  /** For a message of `trades`, `bookTicker` or `depth`. */
  readonly event = new EventFields()
  /** For a message of `gaps`: a ledger row, or an announcement of what is recorded. */
  gap: Gap | null = null
  recording: Recording | null = null
  readonly #scanner = new EventScanner(this.event)

  /**
   * @returns null, or why it cannot be stored: a short stable text that names the field
   * @throws TapelineError `SCHEMA` for a newer schema: such a message is valid and must not be
   * skipped
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

  /** @returns false if it needs the slow path, which also gives the reason for a bad one */
  #scan(kind: EventTopic, bytes: Buffer, start: number, end: number, headers: Headers): boolean {
    const { event } = this
    if (headers.epoch === null || !this.#scanner.readStamped(bytes, start, end)) return false
    event.epoch = hasEpoch(event.type) ? headers.epoch : 0
    if (declarationOf(event.type).topic !== kind) return false
    return (
      headers.schema === null ||
      (headers.type === event.type && (headers.unit === event.timeUnit || !hasTimes(event.type)))
    )
  }

  #parse(kind: Exclude<TopicKind, 'deadLetters'>, value: Buffer, { schema, epoch }: Headers): string | null {
    if (!isUtf8(value)) return 'value is not UTF-8'
    // For a repeated field the last value counts, as in any JSON reader; our stamps are last.
    const data = parseJson(value.toString())
    if (data === undefined) return 'value is not JSON'
    if (!isFields(data)) return 'value is not an object'
    const known = schemaOf(SCHEMAS_OF[kind], schema, data)
    if (known === null) return 'schema is not one of this topic'
    if (known.name === 'gap' || known.name === 'recording') return this.#ledger(known.name, data)
    return this.#event(known.name, known.unit, data, epoch)
  }

  #event(type: EventType, unit: TimeUnit | undefined, data: Fields, epoch: number | null): string | null {
    const { event } = this
    const reason = readPayload(type, data, event, unit)
    if (reason !== null) return reason
    const { ingestion_timestamp_us: receivedUs, source } = data
    if (!isTimeUs(receivedUs)) return NOT_STAMPED
    event.receivedUs = receivedUs
    if (isTradeType(type)) {
      const late = lateSource(source)
      if (source !== undefined && late === null) return NOT_A_SOURCE
      event.source = late ?? 'stream'
    }
    if (hasEpoch(type) && epoch === null) return NOT_AN_EPOCH
    event.epoch = hasEpoch(type) ? (epoch ?? 0) : 0
    return null
  }

  #ledger(name: 'gap' | 'recording', data: Fields): string | null {
    const gap = name === 'gap' ? GAP.safeParse(data) : null
    const recording = name === 'recording' ? RECORDING.safeParse(data) : null
    this.gap = gap?.data ?? null
    this.recording = recording?.data ?? null
    const error = gap?.error ?? recording?.error
    if (error === undefined) return null
    return `${error.issues[0]?.path.join('.') || 'the whole'} does not fit ${name}/${LATEST_SCHEMA[name]}`
  }
}

interface Headers {
  readonly schema: string | null
  /** The event type of the schema; null for any other schema, and without one. */
  readonly type: EventType | null
  /** The unit of the times, from the schema. */
  readonly unit: TimeUnit | null
  /** How often the exchange had restarted the id sequence; null for an invalid header. */
  readonly epoch: number | null
}

/** Parsed headers, cached because most messages share one object. */
const readHeaders = new WeakMap<FetchedMessage['headers'], Headers>()

function headersOf({ headers }: FetchedMessage): Headers {
  const known = readHeaders.get(headers)
  if (known !== undefined) return known
  const schema = headerText(headers, HEADER.schema)
  const epoch = headerText(headers, HEADER.epoch)
  const { type = null, unit = null } = KNOWN_SCHEMAS.get(schema ?? '') ?? {}
  const read = { schema, type, unit, epoch: epoch === null ? 0 : readEpoch(epoch) }
  readHeaders.set(headers, read)
  return read
}
