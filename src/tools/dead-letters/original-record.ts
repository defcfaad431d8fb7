import { isUtf8 } from 'node:buffer'
import { FrameReader, KEPT_FRAME_BYTES, withReceiptStamp } from '../../foundation/binance/stream-frame.ts'
import { FetchedMessage } from '../../foundation/kafka/codec/record-batch.ts'
import type { TopicNames } from '../../foundation/kafka/config.ts'
import { HEADER } from '../../foundation/kafka/headers.ts'
import type { TopicKind } from '../../foundation/kafka/message-decoder.ts'
import { schemaHeader } from '../../foundation/kafka/schema-of.ts'
import { isTradeType, SECOND_UNDER_ID } from '../../foundation/market/event.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import { epochAt } from '../../foundation/store/epoch-at.ts'
import type { LockedDeadLetter } from './retry-statements.ts'

/** The message of a dead letter, with the parts that its decoder reads. */
export interface Original {
  readonly kind: Exclude<TopicKind, 'deadLetters'>
  readonly message: FetchedMessage
}

/** Why there is no message. `hopeless`: no retry can help. */
interface NoOriginal {
  readonly kind: 'failed' | 'hopeless'
  readonly reason: string
}

/** Returns the message that the consumer refused, or that ingestion should have sent. */
export async function originalOf(
  connection: Queryable,
  topic: string,
  letter: LockedDeadLetter,
  topics: TopicNames,
): Promise<Original | NoOriginal> {
  if (letter.origin === 'ingestion') return restoreEvent(connection, letter)
  const kind = (['trades', 'bookTicker', 'depth', 'gaps'] as const).find((name) => topics[name] === topic)
  if (kind !== undefined) return { kind, message: messageOf(letter.payload, letter.headers) }
  return { kind: 'hopeless', reason: `${topic} is not a topic of these settings (KAFKA_…_TOPIC)` }
}

/**
 * Decodes a frame that ingestion rejected, with the current rules.
 *
 * The frame's receipt time is that of its first failure, which was recorded in milliseconds. The
 * message gets this time; its microseconds are 000. Its epoch is that which ingestion would have set.
 */
async function restoreEvent(
  connection: Queryable,
  { payload, firstFailedAtMs, reason: failure }: LockedDeadLetter,
): Promise<Original | NoOriginal> {
  if (payload === null || payload.length === 0) return { kind: 'failed', reason: 'frame is empty' }
  if (payload.length >= KEPT_FRAME_BYTES)
    return { kind: 'hopeless', reason: `frame was cut at ${KEPT_FRAME_BYTES} bytes` }
  if (!isUtf8(payload)) return { kind: 'failed', reason: 'frame is not UTF-8' }
  // A row of REST that ingestion rejected has our own message format.
  const frame = new FrameReader(null, failure === SECOND_UNDER_ID).read(payload)
  switch (frame.kind) {
    case 'event': {
      const { bytes, start, end } = frame.data
      const json = bytes.toString('utf8', start, end)
      const value = Buffer.from(withReceiptStamp(json, firstFailedAtMs, firstFailedAtMs * 1000))
      const { type, symbol, timeUnit, tradeTimeUs } = frame.event
      const schema = [HEADER.schema, schemaHeader(type, timeUnit)] as const
      if (type === 'bookTicker') return { kind: type, message: messageOf(value, [schema]) }
      if (!isTradeType(type)) return { kind: 'failed', reason: `a rejected ${type} is not restored` }
      const epoch = await epochAt(connection, symbol.text, type, tradeTimeUs)
      const headers = epoch > 0 ? [schema, [HEADER.epoch, String(epoch)] as const] : [schema]
      return { kind: 'trades', message: messageOf(value, headers) }
    }
    case 'control':
      return { kind: 'failed', reason: 'frame is no market data' }
    case 'ignored':
      return { kind: 'failed', reason: `frame is ignored: ${frame.reason}` }
    case 'rejected':
      // The same reason as that of ingestion.
      return { kind: 'failed', reason: frame.reason }
    case 'other unit':
      // This reader accepts both units.
      throw new TypeError(`Times in ${frame.unit}s are refused`)
  }
}

function messageOf(value: Buffer | null, headers: LockedDeadLetter['headers']): FetchedMessage {
  const named = headers.map(([name, text]): [Buffer, Buffer] => [Buffer.from(name), Buffer.from(text)])
  return new FetchedMessage(0, null, named, value)
}
