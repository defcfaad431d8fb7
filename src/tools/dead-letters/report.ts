import { printable } from '../../foundation/telemetry/terminal.ts'
import type { ListedDeadLetter, ReasonCount } from './stored-dead-letters.ts'

interface DisplayBytes {
  readonly encoding: 'utf8' | 'hex'
  readonly text: string
  /** Number of bytes that the text does not show. */
  readonly leftOut: number
}

/** Converts the beginning of some bytes: to text if they are UTF-8, else to hex. @param total in bytes */
function displayBytes(bytes: Buffer, total: number): DisplayBytes {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  try {
    const text = decoder.decode(bytes, { stream: total > bytes.length })
    return { encoding: 'utf8', text, leftOut: total - Buffer.byteLength(text) }
  } catch {
    // They are not UTF-8.
    return { encoding: 'hex', text: bytes.toString('hex'), leftOut: total - bytes.length }
  }
}

/** A dead letter in two lines: position, time, origin and reason; then the payload. */
export function renderDeadLetter(letter: ListedDeadLetter): string {
  const { topic, partition, offset, origin, reason, firstFailedAt, failedAt, attempts, resolvedAt } = letter
  const again = attempts > 1 ? `, ${attempts} attempts, last ${failedAt.toISOString()}` : ''
  const state = resolvedAt === null ? '' : `, resolved ${resolvedAt.toISOString()}`
  return [
    `${topic}/${partition}/${offset}  ${firstFailedAt.toISOString()}  ${origin}: ${printable(reason)}${again}${state}`,
    `    ${payloadText(letter)}`,
  ].join('\n')
}

function payloadText({ payload, payloadBytes }: ListedDeadLetter): string {
  if (payload === null) return '(null)'
  if (payloadBytes === 0) return '(empty)'
  const { encoding, text, leftOut } = displayBytes(payload, payloadBytes)
  const more = leftOut === 0 ? '' : ` … ${leftOut} bytes more (--full)`
  return encoding === 'hex' ? `hex ${text}${more}` : `${printable(text)}${more}`
}

/** @param listed number of dead letters shown above */
export function renderCounts(counts: readonly ReasonCount[], listed: number): string {
  const total = counts.reduce((sum, one) => sum + one.unresolved + one.resolved, 0)
  if (total === 0) return 'No dead letters.'
  const width = Math.max(...counts.map(({ unresolved, resolved }) => String(unresolved + resolved).length))
  return [
    '',
    ...counts.map(({ reason, unresolved, resolved }) => {
      const ofThose = resolved === 0 ? '' : ` (${resolved} resolved)`
      return `${String(unresolved + resolved).padStart(width)}  ${printable(reason)}${ofThose}`
    }),
    listed < total
      ? `${total} dead letters, of which the newest ${listed} are listed (--limit).`
      : `${total} dead letters.`,
  ].join('\n')
}

/** A dead letter as JSON; times are UTC. */
export function toJson(letter: ListedDeadLetter): Record<string, unknown> {
  const payload = letter.payload === null ? null : displayBytes(letter.payload, letter.payloadBytes)
  const key = letter.messageKey === null ? null : displayBytes(letter.messageKey, letter.messageKey.length)
  return {
    topic: letter.topic,
    topic_id: letter.topicId,
    partition: letter.partition,
    offset: letter.offset,
    digest: letter.digest,
    origin: letter.origin,
    reason: letter.reason,
    first_failed_at: letter.firstFailedAt.toISOString(),
    failed_at: letter.failedAt.toISOString(),
    attempts: letter.attempts,
    resolved_at: letter.resolvedAt?.toISOString() ?? null,
    key: key?.text ?? null,
    key_encoding: key?.encoding ?? null,
    payload: payload?.text ?? null,
    payload_encoding: payload?.encoding ?? null,
    payload_bytes: letter.payloadBytes,
    payload_bytes_left_out: payload?.leftOut ?? 0,
  }
}
