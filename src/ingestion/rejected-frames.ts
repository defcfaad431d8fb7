import { KEPT_FRAME_BYTES } from '../foundation/binance/stream-frame.ts'
import { HEADER } from '../foundation/kafka/headers.ts'
import { OF_ENDED_IDS, SECOND_UNDER_ID } from '../foundation/market/event.ts'
import { setNewest } from '../foundation/runtime/bounded-map.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { outsideText } from '../foundation/runtime/outside-text.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { IngestionStatus } from '../foundation/telemetry/status.ts'
import { Tally } from '../foundation/telemetry/tally.ts'
import { MinuteCount, type StreamRates } from './connection/stream-rates.ts'
import type { MessageSink } from './messages/message.ts'

/** A stream with a larger share of rejected frames makes ingestion not ready. */
const SHARE_LIMIT = 0.01

const LOG_EVERY_MS = 60_000
const EXCERPT_MAX = 120

/** Limits the kept stream names: rejected frames may name anything. */
const STREAMS_MAX = 1000
const HEAD_BYTES = 300
const STREAM_NAME = /"stream"\s?:\s?"([^"\\]{1,200})"/

/** Reasons of valid events without a place in their sequence; the exchange's own data has such. */
const READ: ReadonlySet<string> = new Set([SECOND_UNDER_ID, OF_ENDED_IDS])

interface RejectedStream {
  readonly rejected: MinuteCount
  reason: string
}

interface LoggedReason {
  loggedAtMs: number
  /** Frames that were not logged yet, and the latest of them. */
  unlogged: number
  stream: string
  excerpt: string
}

export interface RejectedFramesOptions {
  readonly log: Pick<Logger, 'warn'>
  readonly rates: Pick<StreamRates, 'lastMinute' | 'frames'>
  readonly deadLettersTopic: string
  readonly queue: MessageSink
  readonly clock: Pick<Clock, 'monotonicMs'>
}

/**
 * Makes dead letters of rejected frames. Warns at once and then once a minute for each reason, and
 * finds the streams because of which ingestion is not ready. Times are of the monotonic clock.
 */
export class RejectedFrames {
  readonly #options: RejectedFramesOptions
  readonly #counts = new Tally()
  readonly #reasons = new Map<string, LoggedReason>()
  /** By name; the empty name is for frames without a stream. */
  readonly #streams = new Map<string, RejectedStream>()

  rejected = 0

  constructor(options: RejectedFramesOptions) {
    this.#options = options
  }

  get reasons(): Record<string, number> {
    return this.#counts.of('')
  }

  /** Counts a frame without making it a dead letter. */
  count(reason: string): void {
    this.rejected++
    this.#counts.add('', reason)
  }

  /** Sends data to the dead letters. `receiptMs`: milliseconds since the Unix epoch. */
  send(data: Buffer, reason: string, receiptMs: number, epoch = 0): void {
    const { deadLettersTopic: topic, queue, clock } = this.#options
    queue.push({
      topic,
      partition: 0,
      key: null,
      // A copy: the message must not keep a chunk of hundreds of frames in memory.
      value: Buffer.from(data.subarray(0, KEPT_FRAME_BYTES)),
      headers: new Map([
        [Buffer.from(HEADER.origin), Buffer.from('ingestion')],
        [Buffer.from(HEADER.reason), Buffer.from(reason)],
        [Buffer.from(HEADER.time), Buffer.from(String(receiptMs))],
        ...(epoch === 0 ? [] : [[Buffer.from(HEADER.epoch), Buffer.from(String(epoch))] as const]),
      ]),
      timestampMs: receiptMs,
      mark: null,
      queuedAtMs: clock.monotonicMs(),
    })
  }

  /** Rejects a frame, received at `receiptMs`. */
  add(frame: Buffer, reason: string, nowMs: number, receiptMs: number, epoch = 0): void {
    this.count(reason)
    this.send(frame, reason, receiptMs, epoch)
    const head = frame.toString('utf8', 0, HEAD_BYTES)
    const stream = outsideText(STREAM_NAME.exec(head)?.[1] ?? '')
    const unknown = { loggedAtMs: Number.NEGATIVE_INFINITY, unlogged: 0, stream: '', excerpt: '' }
    const logged = this.#reasons.get(reason) ?? unknown
    this.#reasons.set(reason, logged)
    logged.unlogged++
    logged.stream = stream
    logged.excerpt = outsideText(head, EXCERPT_MAX)
    this.#logIfDue(reason, logged, nowMs)
    if (READ.has(reason)) return
    const one = this.#streams.get(stream) ?? { rejected: new MinuteCount(), reason }
    one.rejected.add(nowMs)
    one.reason = reason
    setNewest(this.#streams, stream, one, STREAMS_MAX)
  }

  /** Logs the counts that are due, even if no further frame arrived. Call it about every second. */
  tick(nowMs: number): void {
    for (const [reason, logged] of this.#reasons)
      if (logged.unlogged > 0) this.#logIfDue(reason, logged, nowMs)
  }

  /** Lists streams with more than 1 % rejected frames in the last minute, the worst first. */
  status(nowMs: number): IngestionStatus['rejectedStreams'] {
    const streams: Array<IngestionStatus['rejectedStreams'][number]> = []
    const { rates } = this.#options
    for (const [stream, { rejected, reason }] of this.#streams) {
      const count = rejected.at(nowMs)
      if (count === 0) {
        this.#streams.delete(stream)
        continue
      }
      const all = stream === '' ? rates.frames.at(nowMs) : count + rates.lastMinute(stream, nowMs)
      const share = Math.min(1, count / Math.max(count, all))
      if (share > SHARE_LIMIT) streams.push({ stream, share, reason })
    }
    return streams.sort((left, right) => right.share - left.share)
  }

  /** Returns why ingestion is not ready; empty if rejected frames are no reason. */
  problem(nowMs: number): string {
    const [first, ...more] = this.status(nowMs)
    if (first === undefined) return ''
    const { stream, share, reason } = first
    const name = stream || 'all streams'
    const others = more.length === 0 ? '' : `, and of ${plural(more.length, 'other stream')} more than 1 %`
    return `${Math.ceil(share * 100)} % of the frames of ${name} in the last minute were rejected${others}: ${reason}`
  }

  #logIfDue(reason: string, logged: LoggedReason, nowMs: number): void {
    if (nowMs - logged.loggedAtMs < LOG_EVERY_MS) return
    const { unlogged: count, stream, excerpt } = logged
    logged.loggedAtMs = nowMs
    logged.unlogged = 0
    this.#options.log.warn(
      { reason, count, stream: stream === '' ? null : stream, excerpt },
      `Rejected ${plural(count, 'frame')}, which ${count === 1 ? 'is a dead letter' : 'are dead letters'}: ${reason}`,
    )
  }
}
