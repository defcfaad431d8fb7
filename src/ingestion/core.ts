import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import { type EventFrame, type Frame, FrameReader } from '../foundation/binance/stream-frame.ts'
import { backfillJson, type RestTrade } from '../foundation/binance/trade-rest.ts'
import { otherUnit } from '../foundation/binance/venue.ts'
import { exchangeTimeMs, SECOND_UNDER_ID, streamName } from '../foundation/market/event.ts'
import { ABSENT } from '../foundation/market/event-fields.ts'
import type { IdRange } from '../foundation/market/id-ranges.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { LatencyWindow } from '../foundation/telemetry/latency.ts'
import { Tally } from '../foundation/telemetry/tally.ts'
import type { PriceSample } from './anchors/price-sample.ts'
import type { BackfillPorts } from './backfill/backfill.ts'
import type { SilenceCheck } from './backfill/silence-check.ts'
import type { StreamRates } from './connection/stream-rates.ts'
import type { IdGap, TradeGap } from './continuity/gap-rows.ts'
import { HOLD_LIMIT_MS } from './continuity/stream-connections.ts'
import { StreamMerge } from './continuity/stream-merge.ts'
import { Forwarder, type ForwarderOptions, frameOf, type StampedEvent } from './forwarder.ts'
import type { HeldView } from './messages/held-partition.ts'
import type { MessageQueue } from './messages/message-queue.ts'
import type { ReceiptClock, ReceiptStamp } from './messages/receipt-clock.ts'
import { RejectedFrames, type RejectedFramesOptions } from './rejected-frames.ts'

export interface Delivery {
  readonly queue: Pick<MessageQueue, 'push' | 'whenRoom'>
  readonly batches: { readonly held: Pick<HeldView, 'has'> }
  /** Resolves when everything queued so far is acknowledged, discarded or set aside. */
  settled(signal: AbortSignal): Promise<void>
}

export interface CoreOptions extends Omit<ForwarderOptions & RejectedFramesOptions, 'queue'> {
  readonly timeUnit: TimeUnit
  readonly clock: Clock
  readonly receipts: Pick<ReceiptClock, 'stampFrame' | 'stamp'>
  readonly rates: StreamRates
  /** The recorded symbols, which may become more. */
  readonly symbols: ReadonlySet<string>
  readonly silence: Pick<SilenceCheck, 'watch'>
  readonly prices: Pick<PriceSample, 'isOpen' | 'note'>
  readonly producer: Delivery
}

/** The counters before the first frame. */
export const NO_FRAMES = {
  received: 0,
  forwarded: 0,
  duplicate: 0,
  control: 0,
  ignored: 0,
  rejected: 0,
  held: 0,
}

export type ControlFrame = Extract<Frame, { kind: 'control' }>

/** What a frame was. The connection acts on a control frame. */
export type FrameOutcome = 'event' | 'other' | ControlFrame

/**
 * Receives what the connections deliver, and queues messages: parses and stamps a frame, merges the
 * connections of its stream, compares its id with earlier ones. Data flows one way, from the merge
 * through continuity and the ledger to the queue. Every frame is counted once: received = forwarded
 * + duplicate + control + ignored + rejected + held.
 */
export class Core implements BackfillPorts {
  readonly rates: StreamRates
  readonly rejections: RejectedFrames
  readonly #options: CoreOptions
  readonly #merge: StreamMerge<StampedEvent>
  readonly #forwarder: Forwarder
  readonly #reader: FrameReader
  readonly #ignored = new Tally()
  #eventToReceipt = new LatencyWindow()
  readonly #counters = { received: 0, control: 0, ignored: 0 }

  constructor(options: CoreOptions) {
    const { clock, rates, continuity, timeUnit } = options
    const { queue } = options.producer
    this.#options = options
    this.rates = rates
    this.#reader = new FrameReader(timeUnit)
    this.rejections = new RejectedFrames({ ...options, queue })
    this.#forwarder = new Forwarder({ ...options, queue }, this.rejections)
    this.#merge = new StreamMerge(clock, this.#forwarder, rates, continuity)
  }

  get counters() {
    const { duplicates: duplicate, held } = this.#options.continuity
    return {
      ...this.#counters,
      forwarded: this.#forwarder.forwarded,
      duplicate,
      rejected: this.rejections.rejected,
      held: held + this.#merge.held,
    }
  }

  onFrame(bytes: Buffer, connection: number): FrameOutcome {
    const { clock, receipts, timeUnit, onFatal } = this.#options
    const frame = this.#reader.read(bytes)
    const stamp = receipts.stampFrame()
    // It waited in a buffer, and is not counted.
    if (stamp === null) return 'other'
    this.#counters.received++
    const nowMs = clock.monotonicMs()
    this.rates.frames.add(nowMs)
    switch (frame.kind) {
      case 'event':
        this.#observe(frame, stamp, connection, nowMs)
        return 'event'
      case 'control':
        this.#counters.control++
        return frame
      case 'ignored':
        this.#counters.ignored++
        this.#ignored.add('ignored', frame.reason)
        return 'other'
      case 'rejected':
        this.rejections.add(bytes, frame.reason, nowMs, stamp.ms)
        return 'other'
      case 'other unit':
        this.rejections.count(`times in ${frame.unit}s`)
        onFatal(otherUnit('The exchange', frame.unit, timeUnit))
        return 'other'
    }
  }

  #observe(frame: EventFrame, stamp: ReceiptStamp, connection: number, nowMs: number): void {
    const { prices } = this.#options
    const { stream, type, event, data } = frame
    const { firstId, id, lastTradeId, eventTimeUs } = event
    const symbol = event.symbol.text
    const receiptMs = stamp.ms
    const timeMs = exchangeTimeMs(event) ?? receiptMs
    this.rates.seen(stream, id, nowMs, connection)
    if (eventTimeUs !== ABSENT) this.#eventToReceipt.record(receiptMs - Math.floor(eventTimeUs / 1000), nowMs)
    if (prices.isOpen) prices.note(event, nowMs)
    this.#merge.offer(
      { stream, symbol, type, firstId, id, lastTradeId, timeMs, connection, receiptMs, data, stamp },
      nowMs,
    )
  }

  /** Notes an open connection. Streams that it alone delivers are expected to deliver soon. */
  connected(connection: number, plan: Pick<ConnectionPlan, 'streams' | 'subscriptions'>): void {
    this.#await(this.#merge.opened(connection, plan.streams, plan.subscriptions.flat()))
  }

  /** Notes further streams of an open connection; they count once the exchange confirms them. */
  joining(connection: number, streams: readonly string[]): void {
    this.#await(this.#merge.joined(connection, streams, streams))
  }

  #await(alone: readonly string[]): void {
    this.#options.continuity.interrupted(alone, 'reconnect')
    this.#options.silence.watch(this.#options.symbols, new Set(alone))
  }

  /** Whether an open connection is subscribed to a stream. */
  isSubscribed(stream: string): boolean {
    return this.#merge.isSubscribed(stream)
  }

  /** Notes that the exchange has confirmed streams that did not fit in the URL. */
  subscribed(connection: number, streams: readonly string[]): void {
    this.#merge.subscribed(connection, streams)
  }

  /** Notes that an open connection has dropped streams that the exchange no longer has. */
  left(connection: number, streams: readonly string[]): void {
    this.rates.forget(connection, streams)
    this.rates.halt(streams)
    this.#merge.left(connection, streams, 'delisted')
  }

  /** Notes quiet streams: an outage, unless another connection delivers them. */
  quiet(streams: readonly string[]): void {
    const nowMs = this.#options.clock.monotonicMs()
    const { rates } = this
    const isOut = (stream: string) =>
      nowMs - rates.lastSeenMs(stream) > rates.patienceMs(stream) - HOLD_LIMIT_MS
    this.#options.continuity.interrupted(streams.filter(isOut), 'stall')
  }

  /** Notes a closed connection. Streams that it alone delivered may have missed events. */
  disconnected(connection: number, streams: readonly string[]): void {
    const { silence, symbols } = this.#options
    this.rates.forget(connection, streams)
    const uncovered = this.#merge.closed(connection, streams, 'reconnect')
    // An open connection needs no second check when it begins to deliver.
    if (this.#merge.connections > 0) silence.watch(symbols, new Set(uncovered))
  }

  /** Releases held events after the wall clock was set: they were received and stamped before. */
  clockStepped(): void {
    this.#merge.flush()
    this.#eventToReceipt = new LatencyWindow()
  }

  stop(): void {
    this.#merge.stop()
  }

  missingIn(gap: IdGap): IdRange[] {
    return this.#options.continuity.missingIn(streamName(gap.symbol, gap.event_type), gap)
  }

  /** Queues trades of a gap that REST has returned. */
  forward({ symbol, event_type: type, epoch }: TradeGap, trades: readonly RestTrade[]): void {
    const { clock, continuity, producer, receipts, router, timeUnit } = this.#options
    const stream = streamName(symbol, type)
    const { topic, partition, key, headers } = router.route(stream, symbol, type, epoch)
    for (const trade of trades) {
      const { ms, us } = receipts.stamp()
      const timeMs = Math.floor(trade.timeUs / 1000)
      producer.queue.push({
        topic,
        partition,
        key,
        headers,
        value: Buffer.from(backfillJson(symbol, type, trade, timeUnit, ms, us)),
        timestampMs: ms,
        mark: { symbol, type, epoch, firstId: trade.id, id: trade.id, timeMs },
        queuedAtMs: clock.monotonicMs(),
      })
      continuity.filled(stream, epoch, { from: trade.id, to: trade.id }, timeMs)
    }
  }

  keepSecond({ symbol, event_type: type, epoch }: TradeGap, trade: RestTrade): void {
    const { receipts, timeUnit } = this.#options
    const { ms, us } = receipts.stamp()
    const json = backfillJson(symbol, type, trade, timeUnit, ms, us)
    this.rejections.send(frameOf(streamName(symbol, type), json), SECOND_UNDER_ID, ms, epoch)
  }

  abandoned({ symbol, event_type, epoch }: TradeGap, ids: IdRange): void {
    this.#options.continuity.filled(streamName(symbol, event_type), epoch, ids)
  }

  isHeld({ symbol, event_type, epoch }: TradeGap): boolean {
    const { producer, router } = this.#options
    return producer.batches.held.has(router.route(streamName(symbol, event_type), symbol, event_type, epoch))
  }

  settled(signal: AbortSignal): Promise<void> {
    return this.#options.producer.settled(signal)
  }

  whenRoom(signal: AbortSignal): Promise<void> {
    return this.#options.producer.queue.whenRoom(signal)
  }

  /** Counts frames that were `ignored` or `rejected`, by reason. */
  reasons(kind: 'ignored' | 'rejected'): Record<string, number> {
    return kind === 'ignored' ? this.#ignored.of(kind) : this.rejections.reasons
  }

  /** Events in an unknown layout, which `JSON.parse` read at several times the cost. */
  get parsedEvents(): number {
    return this.#reader.parsedEvents
  }

  /** Milliseconds from the exchange's event time to the receipt. */
  get eventToReceipt(): Pick<LatencyWindow, 'summary' | 'min'> {
    return this.#eventToReceipt
  }
}
