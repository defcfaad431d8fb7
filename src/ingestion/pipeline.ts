import { EXCHANGE_INFO_WEIGHT, SERVER_TIME_WEIGHT } from '../foundation/binance/rest.ts'
import { backfillJson, type RestTrade } from '../foundation/binance/trade-rest.ts'
import { WeightBudget } from '../foundation/binance/weight-budget.ts'
import type { BaseOffset } from '../foundation/kafka/record-sender.ts'
import { beginsAtZero, streamName } from '../foundation/market/event.ts'
import { unlessAborted } from '../foundation/runtime/backoff.ts'
import { Backfill } from './backfill/backfill.ts'
import { RestCaller } from './backfill/rest-caller.ts'
import { SilenceCheck } from './backfill/silence-check.ts'
import type { AcknowledgedState } from './checkpoint/acknowledged-state.ts'
import { CheckpointWriter } from './checkpoint/checkpoint-writer.ts'
import { ClockOffset } from './checkpoint/clock-offset.ts'
import { ForeignGaps } from './checkpoint/foreign-gaps.ts'
import { InstanceCheck } from './checkpoint/instance-check.ts'
import { takeOverMemory } from './checkpoint/take-over-memory.ts'
import type { IngestionConfig } from './config.ts'
import { Continuity, type StreamMemory } from './continuity/continuity.ts'
import { DiscardedEvents } from './continuity/discarded-events.ts'
import { GapLedger } from './continuity/gap-ledger.ts'
import type { IdGap } from './continuity/gap-rows.ts'
import { type ControlFrame, FrameHandler, type StampedEvent } from './frame-handler.ts'
import { LedgerPublisher } from './ledger-publisher.ts'
import { LostTail } from './lost-tail.ts'
import { type DiscardCause, type OutgoingMessage, Router } from './messages/message.ts'
import { type ClockStep, ReceiptClock } from './messages/receipt-clock.ts'
import type { PipelineContext } from './pipeline-context.ts'
import { StreamCoverage } from './stream-coverage.ts'
import { TopicWatch } from './topic-watch.ts'

const CHECKPOINT_EVERY_MS = 5000

/** For a symbol that the exchange has just listed: the ids from 0 to the first event are a gap. */
const LISTED: StreamMemory = {
  epoch: 0,
  first: 0,
  last: -1,
  lastTimeMs: 0,
  holes: [],
  clockAheadMs: null,
  cause: 'listed',
}

type PipelineConfig = Pick<
  IngestionConfig,
  'topics' | 'eventTypes' | 'restWeightPerMinute' | 'backfillMaxIds' | 'backoff' | 'clockLimits'
>

/**
 * Turns frames into messages and ledger rows, and holds the state that outlives this process. Built
 * once the topics are known to be this exchange's.
 */
export class Pipeline {
  readonly handler: FrameHandler
  readonly ledger: GapLedger
  readonly backfill: Backfill
  readonly publisher: LedgerPublisher
  readonly rest: RestCaller
  readonly foreignGaps: ForeignGaps<StampedEvent>
  readonly topics: TopicWatch
  readonly coverage: StreamCoverage
  readonly #config: PipelineConfig
  readonly #context: PipelineContext
  readonly #stopping = new AbortController()
  readonly #receiptClock: ReceiptClock
  readonly #clockOffset = new ClockOffset()
  readonly #router: Router
  readonly #continuity: Continuity<StampedEvent>
  readonly #acknowledged: AcknowledgedState
  readonly #checkpoints: CheckpointWriter
  readonly #tails: PipelineContext['tails']
  readonly #lostTail: LostTail
  readonly #watch: PipelineContext['watch']
  readonly #instances: InstanceCheck
  readonly #silence: SilenceCheck
  readonly discarded: DiscardedEvents
  #cancelTick: (() => void) | null = null
  #checking: Promise<void> = Promise.resolve()

  /** @param memory the recovered state: this instance writes its start records from it at once */
  constructor(config: PipelineConfig, context: PipelineContext, memory: AcknowledgedState) {
    const { ports, topics, symbols, source, timeUnit, log } = context
    const { clock, random } = ports
    this.#config = config
    this.#context = context
    this.#acknowledged = memory
    this.#receiptClock = new ReceiptClock(clock, config.clockLimits, {
      onSecond: () => {
        const nowMs = clock.monotonicMs()
        this.#clockOffset.note(this.handler.leastEventToReceiptMs(nowMs))
        this.#continuity.forgetOldQuotes(nowMs)
        this.handler.rejections.tick(nowMs)
        context.onSecond()
      },
      onFreeze: (stoodMs) =>
        context.dropConnections(`this process did not run for ${Math.round(stoodMs / 1000)} s`),
      onStep: (step) => this.#onClockStep(step),
    })
    this.#router = new Router(config.topics, topics, timeUnit)
    const wallMs = () => Math.floor(clock.wallMicros() / 1000)
    const publisher = new LedgerPublisher(context, config.topics.gaps, memory)
    this.publisher = publisher
    this.ledger = new GapLedger(
      (gap) => publisher.publish(gap),
      ({ symbol, event_type, epoch }, lost) =>
        this.#continuity.filled(streamName(symbol, event_type), epoch, lost),
      wallMs,
    )
    this.#continuity = new Continuity<StampedEvent>(
      this.ledger,
      () => this.backfill.notice(),
      () => this.#clockOffset.aheadMs,
    )
    this.discarded = new DiscardedEvents(this.#continuity, this.ledger)
    this.foreignGaps = new ForeignGaps(memory, this.ledger, this.#continuity, () => this.backfill.notice())
    this.handler = new FrameHandler({
      timeUnit,
      stamp: () => this.#receiptClock.stampFrame(),
      clock,
      continuity: this.#continuity,
      route: (stream, symbol, type, epoch) => this.#router.route(stream, symbol, type, epoch),
      clockAheadMs: () => this.#clockOffset.aheadMs,
      deadLettersTopic: config.topics.deadLetters,
      send: context.send,
      onFatal: context.onFatal,
      log,
    })
    const budget = new WeightBudget(config.restWeightPerMinute)
    // The symbols were requested a moment ago, and the server time follows.
    budget.take(EXCHANGE_INFO_WEIGHT + SERVER_TIME_WEIGHT, clock.monotonicMs())
    const { backoff } = config
    const rest = new RestCaller(ports.exchange.fetchTrades({ source, timeUnit }), budget, context.gate, clock)
    this.rest = rest
    this.backfill = new Backfill(
      { rest, clock, random, backoff, maxIds: config.backfillMaxIds },
      {
        missingIn: (gap) => this.#continuity.missingIn(streamName(gap.symbol, gap.event_type), gap),
        forward: (gap, trades) => this.#forwardBackfilled(gap, trades),
        keepSecond: ({ symbol, event_type: type, epoch }, trade) => {
          const { ms, us } = this.#receiptClock.stamp()
          const json = backfillJson(symbol, type, trade, timeUnit, ms, us)
          this.handler.secondOfRest(streamName(symbol, type), json, ms, epoch)
        },
        isHeld: ({ symbol, event_type, epoch }) =>
          context.isHeld(this.#router.route(streamName(symbol, event_type), symbol, event_type, epoch)),
        settled: context.settled,
        whenRoom: context.whenRoom,
      },
      this.ledger,
      log,
    )
    const hasDeliveredSince = (stream: string, sinceMs: number) =>
      this.handler.rates.lastSeenMs(stream) >= sinceMs
    this.#silence = new SilenceCheck(
      { rest, clock, random, backoff, hasDeliveredSince },
      this.#continuity,
      log,
    )
    this.coverage = new StreamCoverage(clock, symbols, this.handler, this.#continuity, this.#silence)
    this.#tails = context.tails
    this.#watch = context.watch
    this.#instances = new InstanceCheck(context.watch, context.onFatal, this.#stopping.signal, log)
    this.topics = new TopicWatch(
      ports.kafka,
      topics,
      { onRecreated: (topic) => this.#onRecreated(topic), onFatal: context.onFatal },
      log,
    )
    this.#checkpoints = new CheckpointWriter(
      {
        instance: context.instance,
        symbols,
        names: config.topics,
        topics,
        clock,
        counters: context.counters,
        ledgerRead: (partition) => context.watch.position(config.topics.gaps, partition),
        epochs: this.#tails,
        topicId: (topic) => this.topics.idOf(topic),
      },
      this.#acknowledged,
      context.send,
    )
    this.#lostTail = new LostTail({
      context,
      bookTicker: config.topics.bookTicker,
      acknowledged: memory,
      checkpoints: this.#checkpoints,
      ledger: this.ledger,
      topicWatch: this.topics,
      signal: this.#stopping.signal,
    })
    takeOverMemory(memory, context, this.ledger, this.#continuity, {
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

  /** Starts the timers. Call it once the producer runs. */
  start(): void {
    this.#receiptClock.start()
    this.backfill.start()
    this.#silence.start()
    this.#tick()
  }

  /** Detections of lost acknowledged messages, at the start and by the instance watch. */
  get truncations(): number {
    return this.#context.truncations + this.#watch.truncations
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
    const { mark, topic } = message
    this.#checkpoints.onSettled([message])
    this.publisher.onDiscarded(message)
    if (mark === null) return
    this.discarded.add(mark, cause, this.#context.ports.clock.monotonicMs())
    if (cause === 'too large')
      this.handler.deadLetter(message.value, `too large for ${topic}`, this.#receiptClock.stamp().ms)
  }

  handle(frame: Buffer, connection: number, onControl: (control: ControlFrame) => void): boolean {
    return this.handler.handle(frame, connection, onControl)
  }

  /**
   * Adds symbols and queues their start records. @param listed those to record from the first id
   */
  add(symbols: readonly string[], listed: readonly string[]): void {
    for (const symbol of listed) {
      const types = this.#config.eventTypes.filter(beginsAtZero)
      this.#acknowledged.beginAtFirstId(symbol, types)
      for (const type of types) this.#continuity.restore(streamName(symbol, type), symbol, type, LISTED)
    }
    this.#checkpoints.writeStart(symbols)
  }

  /** Stops backfill and the instance watch. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    this.#cancelTick?.()
    this.handler.merge.stop()
    await Promise.all([this.backfill.stop(), this.#silence.stop()])
    this.#receiptClock.stop()
    await this.#checking
    await this.#instances.close()
  }

  /** Writes the last checkpoints. If the signal aborts, the next start uses the previous ones. */
  async writeLastCheckpoints(signal: AbortSignal): Promise<void> {
    try {
      await this.#context.settled(signal)
      await unlessAborted(this.#writeCheckpoints(true), signal)
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      await Promise.all([this.#tails.close(), this.topics.close()])
    }
  }

  /** @param isLast writes everything, due or not */
  async #writeCheckpoints(isLast = false): Promise<void> {
    if (this.discarded.enter(this.#context.ports.clock.monotonicMs(), isLast)) this.backfill.notice()
    await this.#checkpoints.writeChanged()
  }

  #onClockStep(step: ClockStep): void {
    const [from, to] = [step.fromMs, step.toMs].map((ms) => new Date(ms).toISOString())
    const text = `the clock jumped from ${from} to ${to}`
    this.#context.log.warn(step, `Receipts can no longer be compared with earlier ones: ${text}`)
    this.handler.clockStepped()
    this.#continuity.clockStepped(step)
    this.#context.dropConnections(text)
    this.#clockOffset.stepped(step)
  }

  #forwardBackfilled({ symbol, event_type: type, epoch }: IdGap, trades: readonly RestTrade[]): void {
    const { ports, send, timeUnit } = this.#context
    const stream = streamName(symbol, type)
    const { topic, partition, key, headers } = this.#router.route(stream, symbol, type, epoch)
    for (const trade of trades) {
      const { ms, us } = this.#receiptClock.stamp()
      const timeMs = Math.floor(trade.timeUs / 1000)
      send({
        topic,
        partition,
        key,
        headers,
        value: Buffer.from(backfillJson(symbol, type, trade, timeUnit, ms, us)),
        timestampMs: ms,
        mark: { symbol, type, epoch, id: trade.id, timeMs },
        queuedAtMs: ports.clock.monotonicMs(),
      })
      this.#continuity.filled(stream, epoch, { from: trade.id, to: trade.id }, timeMs)
    }
  }

  /** Acknowledged ids stay known, since they may be stored. Consumers request those they lost. */
  #onRecreated(topic: string): void {
    const { checkpoints, gaps } = this.#config.topics
    this.#acknowledged.forgetOffsets(topic)
    this.#tails.recreated(topic)
    this.#watch.recreated(topic)
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
