import { isUtf8 } from 'node:buffer'
import { z } from 'zod'
import { EPOCH_MAX } from '../market/fields.ts'
import { parseJson } from '../runtime/outside-text.ts'

/** Header names of Tapeline's messages. Values are text. */
export const HEADER = {
  /**
   * `trade/2`, `aggTrade/2`, `depth/2` (times in microseconds), `trade/1`, `aggTrade/1`, `depth/1` (in
   * milliseconds), `bookTicker/1`, `depthSnapshot/1`, `gap/1`, `recording/1`: see `schema-of.ts`.
   */
  schema: 'schema',
  /** How often the exchange has restarted the ids of trades or depth updates, as digits; absent means 0. */
  epoch: 'epoch',
  /** The first bookTicker after an outage: the ledger row of the outage, as JSON. */
  outage: 'outage',
  /**
   * With `outage`, and on the first quote of a symbol: how many ms the clock of the quote was ahead of
   * the exchange's; empty if unknown.
   */
  clockAhead: 'clock_ahead',
  /** Ledger rows: the ingestion process that wrote the row; absent in a request to reopen a gap. */
  instance: 'instance',
  /** Dead letters: the service that rejected the message, `ingestion` or `consumer`. */
  origin: 'origin',
  originTopic: 'origin_topic',
  /** Kafka's id of that topic. */
  originTopicId: 'origin_topic_id',
  originPartition: 'origin_partition',
  originOffset: 'origin_offset',
  /** Dead letters of the consumer: the original headers, as the JSON of `[[name, value], …]`. */
  originHeaders: 'origin_headers',
  reason: 'reason',
  /** Dead letters: the time of the failure, in milliseconds since the Unix epoch. */
  time: 'time',
} as const

/** Headers as in a fetched message. */
type Headers = ReadonlyArray<readonly [Buffer | null, Buffer | null]>

/** Returns the text of a header; null if the message has none of that name. */
export function headerText(headers: Headers, name: string): string | null {
  for (const [key, value] of headers) {
    if (key !== null && key.length === name.length && key.toString('latin1') === name)
      return value?.toString() ?? ''
  }
  return null
}

/** Returns all headers of a name. */
export function headersNamed(name: string, headers: Headers): Buffer[] {
  return headers.flatMap(([key, value]) =>
    value !== null && key?.toString('latin1') === name ? [value] : [],
  )
}

/** The reason when {@link readEpoch} returns null. */
export const NOT_AN_EPOCH = `epoch is not a number from 0 to ${EPOCH_MAX}`

/** @returns null if the text is not an epoch */
export function readEpoch(text: string): number | null {
  return /^\d{1,10}$/.test(text) && Number(text) <= EPOCH_MAX ? Number(text) : null
}

/** Limits of the headers that are kept, since a message may come from any producer. */
const KEPT_HEADERS = 20
const KEPT_CHARACTERS = 1000

/** Returns headers as texts, to store with a message; binary and long ones are left out. */
export function headerTexts(headers: Headers): Array<[name: string, value: string]> {
  const texts: Array<[string, string]> = []
  for (const [key, value] of headers) {
    if (key === null || value === null || texts.length === KEPT_HEADERS) continue
    if (isPlainText(key) && isPlainText(value)) texts.push([key.toString(), value.toString()])
  }
  return texts
}

const storable = z.string().refine((text) => text.isWellFormed() && !text.includes('\0'))
const HEADER_TEXTS = z.array(z.tuple([storable, storable]))

/** Parses the result of {@link headerTexts} from JSON; undefined for anything else. */
export function parseHeaderTexts(json: string): Array<[name: string, value: string]> | undefined {
  return HEADER_TEXTS.safeParse(parseJson(json)).data
}

function isPlainText(bytes: Buffer): boolean {
  return bytes.length <= KEPT_CHARACTERS && isUtf8(bytes) && !bytes.includes(0)
}
