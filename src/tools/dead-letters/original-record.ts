import { isUtf8 } from 'node:buffer'
import {
  type EventFrame,
  FrameReader,
  KEPT_FRAME_BYTES,
  withReceiptStamp,
} from '../../foundation/binance/stream-frame.ts'
import { FetchedMessage } from '../../foundation/kafka/codec/record-batch.ts'
import { HEADER } from '../../foundation/kafka/headers.ts'
import { schemaHeader } from '../../foundation/kafka/schema-of.ts'
import { SECOND_UNDER_ID } from '../../foundation/market/event.ts'
import type { LockedDeadLetter } from './retry-statements.ts'

/** A market event that ingestion had rejected, as the message that it should have become. */
export interface RestoredEvent {
  readonly event: EventFrame['event']
  readonly value: Buffer
}

/**
 * Decodes a frame that ingestion rejected, with the current rules.
 *
 * The frame's receipt time is that of its first failure, which was recorded in milliseconds. The
 * message gets this time; its microseconds are 000.
 *
 * @returns the event, or the reason why there is none. `cut`: the rest of the frame was not kept,
 *   so no retry can help
 */
export function restoreEvent(
  letter: Pick<LockedDeadLetter, 'payload' | 'firstFailedAtMs' | 'reason'>,
): RestoredEvent | { readonly reason: string; readonly cut: boolean } {
  const { payload, firstFailedAtMs, reason: failure } = letter
  if (payload === null || payload.length === 0) return { reason: 'frame is empty', cut: false }
  // A row of REST that ingestion rejected has our own message format.
  const frame = isUtf8(payload) ? new FrameReader(null, failure === SECOND_UNDER_ID).read(payload) : null
  if (payload.length >= KEPT_FRAME_BYTES) {
    return { reason: `frame was cut at ${KEPT_FRAME_BYTES} bytes`, cut: true }
  }
  if (frame === null) return { reason: 'frame is not UTF-8', cut: false }
  if (frame.kind === 'event') {
    const { bytes, start, end } = frame.data
    const json = bytes.toString('utf8', start, end)
    const stamped = withReceiptStamp(json, firstFailedAtMs, firstFailedAtMs * 1000)
    return { event: frame.event, value: Buffer.from(stamped) }
  }
  // This reader accepts both units.
  if (frame.kind === 'other unit') throw new TypeError(`Times in ${frame.unit}s are refused`)
  const reason =
    frame.kind === 'control' ? 'frame is no market data' : `frame is ${frame.kind}: ${frame.reason}`
  // Use the same reason as ingestion.
  return { reason: frame.kind === 'rejected' ? frame.reason : reason, cut: false }
}

/** Builds the message of a restored event with the `epoch` that ingestion would have set. */
export function messageOf({ event, value }: RestoredEvent, epoch: number): FetchedMessage {
  const headers: Array<[string, string]> = [[HEADER.schema, schemaHeader(event.type, event.timeUnit)]]
  if (epoch > 0) headers.push([HEADER.epoch, String(epoch)])
  return originalMessage(value, headers)
}

/** A consumed message with the parts that its decoder reads. */
export function originalMessage(value: Buffer | null, headers: LockedDeadLetter['headers']): FetchedMessage {
  const named = headers.map(([name, text]): [Buffer, Buffer] => [Buffer.from(name), Buffer.from(text)])
  return new FetchedMessage(0, null, named, value)
}
