import { HEADER, headerText, headerTexts } from '../kafka/headers.ts'
import { isTimeMs } from '../market/fields.ts'
import type { DeadLetterRow } from '../store/dead-letters.ts'
import type { FetchedMessage, FoundDeadLetter } from './batch.ts'
import type { PartitionOrigin } from './partition.ts'

/** Characters of a reason; what a database says can be long. */
const REASON_MAX = 200

/**
 * The dead letter of a message that cannot be stored: its bytes as they came, where it stood, and why.
 *
 * @param failedAtMs of the wall clock
 */
export function deadLetter(
  partition: PartitionOrigin,
  { offset, record }: FetchedMessage,
  reason: string,
  failedAtMs: number,
): FoundDeadLetter {
  const { topic, topicId } = partition
  const said = printable(reason)
  return {
    row: {
      topic,
      topicId,
      partition: partition.partition,
      offset,
      origin: 'consumer',
      reason: said,
      key: record.key,
      payload: record.value,
      headers: headerTexts(record.headers),
      failedAtMs,
    },
    headers: [
      [HEADER.origin, 'consumer'],
      [HEADER.originTopic, topic],
      [HEADER.originPartition, String(partition.partition)],
      [HEADER.originOffset, String(offset)],
      [HEADER.reason, said],
      [HEADER.time, String(failedAtMs)],
    ],
  }
}

/**
 * The table's row of a message in the dead-letter topic. Dead letters of the consumers are in the table already,
 * those of ingestion reach it here.
 *
 * @param nowMs of the wall clock, for letters that do not say when
 * @returns null for a letter that a consumer wrote
 */
export function mirroredLetter(
  { topic, topicId, partition }: PartitionOrigin,
  { offset, record }: FetchedMessage,
  nowMs: number,
): DeadLetterRow | null {
  if (headerText(record.headers, HEADER.origin) !== 'ingestion') return null
  const failedAtMs = Number(headerText(record.headers, HEADER.time))
  return {
    topic,
    topicId,
    partition,
    offset,
    origin: 'ingestion',
    reason: printable(headerText(record.headers, HEADER.reason) ?? 'unknown'),
    key: record.key,
    payload: record.value,
    failedAtMs: isTimeMs(failedAtMs) ? failedAtMs : nowMs,
  }
}

/** A text column takes no NUL, and a reason is one line. */
function printable(reason: string): string {
  const line = reason.replaceAll(/\p{Cc}+/gu, ' ').toWellFormed()
  return line.length <= REASON_MAX ? line : `${line.slice(0, REASON_MAX - 1).toWellFormed()}…`
}
