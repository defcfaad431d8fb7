import type { FetchedMessage } from '../kafka/codec/record-batch.ts'
import { HEADER, headerText, headerTexts, parseHeaderTexts, readEpoch } from '../kafka/headers.ts'
import type { PartitionOrigin } from '../kafka/partition.ts'
import { isTime } from '../market/fields.ts'
import { outsideText } from '../runtime/outside-text.ts'
import type { Queryable } from '../store/database.ts'

/** A message that could not be stored. One with other bytes at the same position is another row. */
export interface DeadLetterRow extends PartitionOrigin {
  readonly offset: number
  readonly origin: 'ingestion' | 'consumer'
  readonly reason: string
  readonly key: Buffer | null
  readonly payload: Buffer | null
  /** The message's original headers, in order; a retry reads schema and epoch from them. */
  readonly headers?: ReadonlyArray<readonly [name: string, value: string]>
  readonly failedAtMs: number
}

/** Creates the dead letter of a message: its original bytes and position, and the reason. */
export function deadLetter(
  { topic, topicId, partition }: PartitionOrigin,
  { offset, key, value: payload, headers }: FetchedMessage,
  reason: string,
  failedAtMs: number,
): DeadLetterRow {
  const message = { offset, key, payload, headers: headerTexts(headers) }
  return {
    topic,
    topicId,
    partition,
    ...message,
    origin: 'consumer',
    reason: outsideText(reason),
    failedAtMs,
  }
}

/** The headers that name the origin of a dead letter of the consumer in the topic. */
export function headersOf(letter: DeadLetterRow): Array<[name: string, text: string]> {
  return [
    [HEADER.origin, 'consumer'],
    [HEADER.originTopic, letter.topic],
    [HEADER.originTopicId, letter.topicId],
    [HEADER.originPartition, String(letter.partition)],
    [HEADER.originOffset, String(letter.offset)],
    [HEADER.originHeaders, JSON.stringify(letter.headers ?? [])],
    [HEADER.reason, letter.reason],
    [HEADER.time, String(letter.failedAtMs)],
  ]
}

/**
 * Converts a message of the dead-letter topic to a row. A frame that ingestion rejected is
 * identified by its position there, a message that a consumer set aside by its original one; the
 * table has the latter already, unless it was restored from an older backup.
 * @returns null for a message that is neither, or lacks the original position
 */
export function mirroredLetter(
  letters: PartitionOrigin,
  message: FetchedMessage,
  nowMs: number,
): DeadLetterRow | null {
  const text = (name: string) => headerText(message.headers, name)
  const failedAtMs = Number(text(HEADER.time))
  const common = {
    reason: outsideText(text(HEADER.reason) ?? 'unknown'),
    key: message.key,
    payload: message.value,
    failedAtMs: isTime(failedAtMs, 'millisecond') ? failedAtMs : nowMs,
  }
  switch (text(HEADER.origin)) {
    case 'ingestion': {
      const { topic, topicId, partition } = letters
      const epoch = text(HEADER.epoch)
      const headers =
        epoch === null || readEpoch(epoch) === null
          ? {}
          : { headers: [[HEADER.epoch, epoch] as [string, string]] }
      return { topic, topicId, partition, offset: message.offset, origin: 'ingestion', ...common, ...headers }
    }
    case 'consumer': {
      const original = placeOf(text)
      const headers = parseHeaderTexts(text(HEADER.originHeaders) ?? '')
      if (original === null) return null
      return { ...original, origin: 'consumer', ...common, ...(headers === undefined ? {} : { headers }) }
    }
    default:
      return null
  }
}

const TOPIC_NAME = /^[\w.-]{1,249}$/
const TOPIC_ID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/

/** The original position of a message that a consumer set aside; null unless headers give it. */
function placeOf(text: (name: string) => string | null): (PartitionOrigin & { offset: number }) | null {
  const topic = text(HEADER.originTopic) ?? ''
  const topicId = text(HEADER.originTopicId) ?? ''
  const partition = wholeNumber(text(HEADER.originPartition), 2 ** 31 - 1)
  const offset = wholeNumber(text(HEADER.originOffset), Number.MAX_SAFE_INTEGER)
  if (partition === null || offset === null || !TOPIC_NAME.test(topic) || !TOPIC_ID.test(topicId)) return null
  return { topic, topicId, partition, offset }
}

function wholeNumber(text: string | null, max: number): number | null {
  return text !== null && /^\d{1,16}$/.test(text) && Number(text) <= max ? Number(text) : null
}

const INSERT = `INSERT INTO dead_letters (topic, topic_id, partition, kafka_offset, origin, reason, key, payload, headers, failed_at)
  SELECT * FROM unnest($1::text[], $2::uuid[], $3::int[], $4::bigint[], $5::text[], $6::text[], $7::bytea[], $8::bytea[],
    $9::jsonb[], $10::timestamptz[])
  ON CONFLICT DO NOTHING`

/** @returns how many rows were new; a redelivered message adds none */
export async function insertDeadLetters(
  connection: Queryable,
  rows: readonly DeadLetterRow[],
): Promise<number> {
  if (rows.length === 0) return 0
  const values = [
    rows.map((row) => row.topic),
    rows.map((row) => row.topicId),
    rows.map((row) => row.partition),
    rows.map((row) => row.offset),
    rows.map((row) => row.origin),
    rows.map((row) => row.reason),
    rows.map((row) => row.key),
    rows.map((row) => row.payload),
    rows.map((row) => (row.headers === undefined ? null : JSON.stringify(row.headers))),
    rows.map((row) => new Date(row.failedAtMs).toISOString()),
  ]
  return (await connection.query(INSERT, values)).rowCount
}
