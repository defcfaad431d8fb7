import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { EXCHANGE_INFO_WEIGHT, SERVER_TIME_WEIGHT } from '../foundation/binance/rest.ts'
import { WeightBudget } from '../foundation/binance/weight-budget.ts'
import type { BaseOffset } from '../foundation/kafka/record-sender.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import { beginsAtZero } from '../foundation/market/event.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import { unlessAborted } from '../foundation/runtime/backoff.ts'
import { wallMs } from '../foundation/runtime/clock.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { Anchors } from './anchors/anchors.ts'
import { PriceSample } from './anchors/price-sample.ts'
import { Backfill } from './backfill/backfill.ts'
import { RestCaller } from './backfill/rest-caller.ts'
import { SilenceCheck } from './backfill/silence-check.ts'
import type { AcknowledgedState } from './checkpoint/acknowledged-state.ts'
import { CheckpointWriter } from './checkpoint/checkpoint-writer.ts'
import { ClockOffset } from './checkpoint/clock-offset.ts'
import { foreignGaps } from './checkpoint/foreign-gaps.ts'
import { instanceCheck } from './checkpoint/instance-check.ts'
import type { RecoveredParts } from './checkpoint/recovery.ts'
import { takeOverMemory } from './checkpoint/take-over-memory.ts'
import type { IngestionConfig } from './config.ts'
import { StreamRates } from './connection/stream-rates.ts'
import { stepText } from './continuity/clock-window.ts'
import { Continuity } from './continuity/continuity.ts'
import { DiscardedEvents } from './continuity/discarded-events.ts'
import { GapLedger } from './continuity/gap-ledger.ts'
import { Core, type Delivery } from './core.ts'
import type { StampedEvent } from './forwarder.ts'
import { LedgerPublisher } from './ledger-publisher.ts'
import { LostTail } from './lost-tail.ts'
import { type DiscardCause, type OutgoingMessage, Router, type SendEvents } from './messages/message.ts'
import { type ClockStep, ReceiptClock } from './messages/receipt-clock.ts'
import { orderBooks } from './order-books.ts'
import type { Ports } from './ports.ts'
import { TopicWatch } from './topic-watch.ts'

const CHECKPOINT_EVERY_MS = 5000

/** For a symbol that the exchange has just listed: the ids from 0 to the first event are a gap. */
const LISTED = { epoch: 0, first: 0, last: -1, last_time: 0, holes: [] }

export interface PipelineContext {
  readonly config: Pick<
    IngestionConfig,
    | 'topics'
    | 'eventTypes'
    | 'restWeightPerMinute'
    | 'backfillMaxIds'
    | 'backoff'
    | 'clockLimits'
    | 'snapshotMaxAgeMs'
  >
  readonly ports: Ports
  readonly gate: Pick<ExchangeGate, 'attempt' | 'leftMs' | 'refused' | 'served'>
  readonly topics: ReadonlyMap<string, TopicMetadata>
  readonly symbols: ReadonlySet<string>
  readonly source: string
  readonly timeUnit: TimeUnit
  readonly producer: Delivery
  /** Called when the checkpoints topic was recreated and needs the exchange identity again. */
  readonly claimTopics: () => void
  /** Called when this instance must stop: another has taken over, or a defect was found. */
  readonly onFatal: (error: unknown) => void
  readonly log: Logger
}

/** Connects the core with what outlives this process, once the topics are claimed. */
export class Pipeline implements SendEvents {
  readonly core: Core
  readonly ledger: GapLedger
  readonly backfill: Backfill
  /** Null if no order books are recorded. */
  readonly anchors: Anchors | null
  readonly publisher: LedgerPublisher
  readonly rest: RestCaller
  readonly topics: TopicWatch
  readonly receipts: ReceiptClock
  readonly #context: PipelineContext
  readonly #stopping = new AbortController()
  readonly #clockOffset = new ClockOffset()
  readonly #continuity: Continuity<StampedEvent>
  readonly #acknowledged: AcknowledgedState
  readonly #checkpoints: CheckpointWriter
  readonly #recovered: RecoveredParts
  readonly #lostTail: LostTail
  readonly #instances: ReturnType<typeof instanceCheck>
  readonly #silence: SilenceCheck
  readonly #discarded: DiscardedEvents
  #cancelTick: (() => void) | null = null
  #checking: Promise<void> = Promise.resolve()

  /** This instance writes its start records from the recovered state at once. */
  constructor(context: PipelineContext, recovered: RecoveredParts) {
    const { config, ports, gate, topics, symbols, source, timeUnit, producer, onFatal, log } = context
    const { memory, instance, watch, tails } = recovered
    const { clock, random } = ports
    const { topics: names, backoff } = config
    const { queue } = producer
    const { signal } = this.#stopping
    this.#context = context
    this.#recovered = recovered
    this.#acknowledged = memory
    const receipts = new ReceiptClock(clock, config.clockLimits)
    const clockOffset = this.#clockOffset
    const publisher = new LedgerPublisher({ ...context, instance, queue }, names.gaps, memory)
    const ledger = new GapLedger(
      (gap) => publisher.publish(gap),
      () => wallMs(clock),
      clock,
    )
    const continuity = new Continuity<StampedEvent>(ledger, () => clockOffset.aheadMs)
    const budget = new WeightBudget(config.restWeightPerMinute)
    // The symbols were requested a moment ago, and the server time follows.
    budget.take(EXCHANGE_INFO_WEIGHT + SERVER_TIME_WEIGHT, clock.monotonicMs())
    const rest = new RestCaller(ports.exchange.fetchTrades({ source, timeUnit }), budget, gate, clock)
    const rates = new StreamRates()
    const hasDeliveredSince = (stream: string, sinceMs: number) => rates.lastSeenMs(stream) >= sinceMs
    this.#silence = new SilenceCheck({ rest, clock, random, backoff, hasDeliveredSince }, continuity, log)
    const router = new Router(names, topics, timeUnit)
    const prices = new PriceSample()
    this.core = new Core({
      ...context,
      clock,
      receipts,
      rates,
      continuity,
      router,
      clockOffset,
      silence: this.#silence,
      prices,
      deadLettersTopic: names.deadLetters,
    })
    const limits = { rest, clock, random, backoff, maxIds: config.backfillMaxIds }
    this.backfill = new Backfill(limits, this.core, ledger, log)
    const parts = { core: this.core, continuity, router, receipts, rest, budget, prices }
    this.anchors = orderBooks(context, parts)
    this.#discarded = new DiscardedEvents(continuity, ledger)
    const foreign = foreignGaps(memory, ledger, continuity)
    this.#instances = instanceCheck(watch, foreign, onFatal, signal, log)
    const onRecreated = (topic: string) => this.#onRecreated(topic)
    this.topics = new TopicWatch(ports.kafka, topics, { onRecreated, onFatal }, log)
    this.#checkpoints = new CheckpointWriter({
      instance,
      symbols,
      names,
      topics,
      clock,
      counters: recovered.counters,
      ledgerRead: (partition) => watch.position(names.gaps, partition),
      epochs: tails,
      topicId: (topic) => this.topics.idOf(topic),
      acknowledged: memory,
      send: (message) => queue.push(message),
    })
    this.#lostTail = new LostTail({
      context,
      bookTicker: names.bookTicker,
      acknowledged: memory,
      checkpoints: this.#checkpoints,
      ledger,
      topicWatch: this.topics,
      signal,
    })
    this.publisher = publisher
    this.ledger = ledger
    this.rest = rest
    this.receipts = receipts
    this.#continuity = continuity
    takeOverMemory(memory, recovered, ledger, continuity, {
      writeStart: () => {
        publisher.start()
        this.#checkpoints.writeStart()
      },
      publish: (gap) => publisher.publish(gap),
    })
  }

  /** Requests the exchange's time, to see whether the clock was set since the previous instance. */
  compareClocks(signal: AbortSignal): Promise<void> {
    const { ports, gate, log } = this.#context
    const ask = (aborted: AbortSignal) => gate.attempt('rest', () => ports.exchange.serverTimeMs(aborted))
    return this.#clockOffset.measure(ports.clock, ask, log, signal)
  }

  /** Starts backfill and the checks. Call it once the producer runs. */
  start(): void {
    this.backfill.start()
    this.#silence.start()
    this.anchors?.start()
    this.#tick()
  }

  /** Detections of lost acknowledged messages, at the start and by the instance watch. */
  get truncations(): number {
    return this.#recovered.truncations + this.#recovered.watch.truncations
  }

  get unsavedRows(): number {
    return this.#acknowledged.unsavedRows
  }

  onAcknowledged(messages: readonly OutgoingMessage[], next: BaseOffset | null): void {
    this.#lostTail.check(messages, next)
    this.#acknowledged.acknowledge(messages, next)
    this.#checkpoints.onSettled(messages)
  }

  onDiscarded(message: OutgoingMessage, cause: DiscardCause): void {
    const { mark, topic, value } = message
    this.#checkpoints.onSettled([message])
    this.publisher.onDiscarded(message)
    this.anchors?.onDiscarded(message, cause)
    if (mark === null) return
    this.#discarded.add(mark, cause, this.#context.ports.clock.monotonicMs())
    if (cause === 'too large')
      this.core.rejections.send(value, `too large for ${topic}`, this.receipts.stamp().ms)
  }

  onKept(message: OutgoingMessage): void {
    this.#discarded.onKept(message)
  }

  onDefect(error: unknown): void {
    this.#context.onFatal(error)
  }

  /** To be called every second while frames are read. */
  onSecond(): void {
    const nowMs = this.#context.ports.clock.monotonicMs()
    this.#clockOffset.note(this.core.eventToReceipt.min(nowMs))
    this.#continuity.forgetOld(nowMs)
    this.core.rejections.tick(nowMs)
  }

  /** Notes that the clock was set, before anything gets a new stamp. @returns what happened */
  clockStepped(step: ClockStep): string {
    const text = stepText(step)
    this.#context.log.warn(step, `Receipts can no longer be compared with earlier ones: ${text}`)
    this.core.clockStepped()
    this.#continuity.clockStepped(step)
    this.#clockOffset.stepped(step)
    return text
  }

  /** Adds symbols and queues their start records. `listed`: those to record from the first id. */
  add(symbols: readonly string[], listed: readonly string[]): void {
    for (const symbol of listed) {
      const types = this.#context.config.eventTypes.filter(beginsAtZero)
      this.#acknowledged.beginAtFirstId(symbol, types)
      for (const type of types) this.#continuity.restore(symbol, type, LISTED, 'listed')
    }
    this.#checkpoints.writeStart(symbols)
  }

  /** Writes the last checkpoints. If the signal aborts, the next start uses the previous ones. */
  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    this.#cancelTick?.()
    this.core.stop()
    await Promise.all([this.backfill.stop(), this.#silence.stop(), this.anchors?.stop()])
    this.receipts.stop()
    await this.#checking
    await this.#instances.close()
    try {
      await this.#context.producer.settled(signal)
      await unlessAborted(this.#writeCheckpoints(true), signal)
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      await Promise.all([this.#recovered.tails.close(), this.topics.close()])
    }
  }

  /** @param isLast writes everything, due or not */
  async #writeCheckpoints(isLast = false): Promise<void> {
    this.#discarded.enter(this.#context.ports.clock.monotonicMs(), isLast)
    await this.#checkpoints.writeChanged()
  }

  /** Acknowledged ids stay known, since they may be stored. Consumers request those they lost. */
  #onRecreated(topic: string): void {
    const { checkpoints, gaps } = this.#context.config.topics
    this.#acknowledged.forgetOffsets(topic)
    this.#recovered.tails.recreated(topic)
    this.#recovered.watch.recreated(topic)
    if (topic === gaps) {
      this.ledger.publishAgain()
      this.publisher.announceAgain()
    }
    if (topic !== checkpoints) return
    this.#checkpoints.writeStart()
    this.#context.claimTopics()
  }

  /** Writes checkpoints in any case: a broker that hangs delays only the other checks. */
  #tick(): void {
    this.#cancelTick = this.#context.ports.clock.schedule(CHECKPOINT_EVERY_MS, () => {
      // A missing topic would delay the others.
      if (this.topics.problem === '') this.#instances.begin()
      void this.topics.check()
      this.publisher.repeatDiscarded()
      this.#checking = this.#writeCheckpoints().then(() => {
        if (!this.#stopping.signal.aborted) this.#tick()
      })
    })
  }
}
