import { randomUUID } from 'node:crypto'
import type { ConnectionPlan } from '../binance/connection-plan.ts'
import type { RestTrade } from '../binance/trade-rest.ts'
import { WeightBudget } from '../binance/weight-budget.ts'
import { TapelineError } from '../errors.ts'
import { HEADER, schemaHeader } from '../kafka/headers.ts'
import { partitionOf } from '../kafka/partition-map.ts'
import type { TopicMetadata } from '../kafka/topic-metadata.ts'
import { EVENT_TYPES, type EventType, streamName } from '../market/event.ts'
import type { Gap } from '../market/gap.ts'
import { type IdRange, subtract } from '../market/id-ranges.ts'
import type { Logger } from '../telemetry/log.ts'
import { Acknowledged } from './acknowledged.ts'
import { Backfill } from './backfill.ts'
import { backfillJson } from './backfill-message.ts'
import { CheckpointWriter } from './checkpoint-writer.ts'
import type { IngestionConfig } from './config.ts'
import { Continuity, type StreamMemory } from './continuity.ts'
import { type ControlFrame, FrameHandler, type StampedEvent } from './frame-handler.ts'
import { GapLedger, type IdGap } from './gap-ledger.ts'
import { InstanceWatch } from './instance-watch.ts'
import type { OnAcknowledged } from './kafka-producer.ts'
import type { OutgoingMessage } from './message-queue.ts'
import type { Outside } from './outside.ts'
import { type ReceiptStamp, receiptStamper } from './receipt-stamp.ts'
import { type Recovered, recover } from './recovery.ts'
import { Router } from './router.ts'
import { SilenceCheck } from './silence-check.ts'
import { HOLD_LIMIT_MS } from './stream-legs.ts'

const CHECKPOINT_EVERY_MS = 5000

type PipelineConfig = Pick<IngestionConfig, 'topics' | 'restWeightPerMinute' | 'backfillMaxIds' | 'backoff'>

/** What the pipeline stands on. */
export interface PipelinePorts {
  readonly outside: Outside
  /** Names this process in its checkpoints. */
  readonly instance: string
  readonly watch: Pick<InstanceWatch, 'check' | 'close'>
  readonly topics: ReadonlyMap<string, TopicMetadata>
  readonly symbols: readonly string[]
  readonly send: (message: OutgoingMessage) => void
  readonly acknowledged: (signal: AbortSignal) => Promise<void>
  readonly whenRoom: (signal: AbortSignal) => Promise<void>
  /** Another instance has taken over, or a defect: this one must stop. */
  readonly onFatal: (error: unknown) => void
  readonly log: Logger
}

/**
 * From frames to messages and the ledger, with the memory that outlives this process: built once the topics are
 * known to be this exchange's.
 */
export class Pipeline {
  readonly handler: FrameHandler
  readonly ledger: GapLedger
  readonly backfill: Backfill
  readonly #config: PipelineConfig
  readonly #ports: PipelinePorts
  readonly #stopping = new AbortController()
  readonly #stamp: () => ReceiptStamp
  readonly #router: Router
  readonly #continuity: Continuity<StampedEvent>
  readonly #acknowledged = new Acknowledged()
  readonly #checkpoints: CheckpointWriter
  readonly #watch: Pick<InstanceWatch, 'check' | 'close'>
  readonly #silence: SilenceCheck
  #cancelTick: (() => void) | null = null
  #checking: Promise<void> = Promise.resolve()

  /** @param recovered what the topics know: the start records of this instance are written on top of it at once */
  constructor(
    config: PipelineConfig,
    ports: PipelinePorts,
    recovered: Omit<Recovered, 'replayed' | 'checkpointEnds'>,
  ) {
    const { outside, topics, symbols, log } = ports
    const { clock, random } = outside
    const fetch = outside.exchange.fetchTrades
    this.#config = config
    this.#ports = ports
    this.#stamp = receiptStamper(() => clock.wallMicros())
    this.#router = new Router(config.topics, topics)
    const wallMs = () => Math.floor(clock.wallMicros() / 1000)
    this.ledger = new GapLedger(
      (gap) => this.#publishGap(gap),
      (gap, lost) => this.#settle(gap, lost),
      wallMs,
    )
    this.#continuity = new Continuity<StampedEvent>(this.ledger, () => this.backfill.notice())
    this.handler = new FrameHandler({
      stamp: this.#stamp,
      clock,
      continuity: this.#continuity,
      route: (stream, symbol, type, epoch) => this.#router.route(stream, symbol, type, epoch),
      deadLettersTopic: config.topics.deadLetters,
      send: ports.send,
    })
    const { instance } = ports
    const budget = new WeightBudget(config.restWeightPerMinute)
    this.backfill = new Backfill(
      { fetch, budget, clock, random, backoff: config.backoff, maxIds: config.backfillMaxIds },
      {
        missingIn: (gap) => this.#continuity.missingIn(streamName(gap.symbol, gap.event_type), gap),
        forward: (gap, trades) => this.#forwardBackfilled(gap, trades),
        acknowledged: ports.acknowledged,
        whenRoom: ports.whenRoom,
      },
      this.ledger,
      log,
    )
    this.#silence = new SilenceCheck(fetch, budget, clock, this.#continuity)
    this.#checkpoints = new CheckpointWriter(
      { instance, symbols, names: config.topics, topics, clock },
      this.#acknowledged,
      this.ledger,
      ports.send,
    )
    this.#watch = ports.watch
    this.#restore(recovered)
  }

  /** Recovers what the topics know, and tells older instances over the same symbols to stop, unless it is to stop itself. */
  static async open(
    config: IngestionConfig,
    ports: Omit<PipelinePorts, 'instance' | 'watch'>,
    stopping: AbortSignal,
  ): Promise<Pipeline> {
    const { outside, symbols, log } = ports
    const recovered = await recover(outside.kafka, config.topics, symbols)
    stopping.throwIfAborted()
    const { streams, openGaps, replayed, checkpointEnds } = recovered
    const instance = randomUUID()
    const watch = new InstanceWatch(
      outside.kafka,
      config.topics.checkpoints,
      instance,
      symbols,
      checkpointEnds,
    )
    await watch.connect()
    if (stopping.aborted) {
      await watch.close()
      stopping.throwIfAborted()
    }
    if (streams.size > 0) {
      log.info(
        { streams: streams.size, replayed, openGaps: openGaps.length },
        'Memory recovered from the topics',
      )
    }
    return new Pipeline(config, { ...ports, instance, watch }, recovered)
  }

  /** To be called once the queue is being emptied. */
  start(): void {
    this.backfill.start()
    this.#tick()
  }

  readonly onAcknowledged: OnAcknowledged = (messages, nextOffsets) => {
    this.#acknowledged.acknowledge(messages, nextOffsets)
  }

  handle(frame: Buffer, connection: number, onControl: (control: ControlFrame) => void): boolean {
    return this.handler.handle(frame, connection, onControl)
  }

  /** A connection has opened: what it alone delivers is to deliver soon, or is asked for. */
  connected(
    connection: number,
    { streams, subscriptions }: Pick<ConnectionPlan, 'streams' | 'subscriptions'>,
  ): void {
    const alone = this.handler.merge.opened(connection, streams, subscriptions.flat())
    this.#continuity.interrupted(alone, 'reconnect')
    this.#askIfSilent(alone)
  }

  /** Symbols of which nothing comes soon are asked for. */
  #askIfSilent(streams: readonly string[]): void {
    const sinceMs = this.#ports.outside.clock.monotonicMs()
    const alone = new Set(streams)
    const symbols = this.#ports.symbols.filter((symbol) =>
      EVENT_TYPES.some((type) => alone.has(streamName(symbol, type))),
    )
    const seen = (stream: string) => this.handler.rates.lastSeenMs(stream) >= sinceMs
    this.#silence.run(symbols, seen, this.#stopping.signal).catch((error: unknown) => {
      if (!this.#stopping.signal.aborted) this.#ports.onFatal(error)
    })
  }

  /** Streams have gone quiet on a connection: where no other delivers them, they are out until their next event. */
  quiet(streams: readonly string[]): void {
    const nowMs = this.#ports.outside.clock.monotonicMs()
    const { rates } = this.handler
    const isOut = (stream: string) =>
      nowMs - rates.lastSeenMs(stream) > rates.patienceMs(stream) - HOLD_LIMIT_MS
    this.#continuity.interrupted(streams.filter(isOut), 'stall')
  }

  /** A connection is gone; what it alone delivered may have something missing before its next event. */
  disconnected(connection: number, streams: readonly string[], cause: string): void {
    this.handler.rates.forget(connection, streams)
    const uncovered = this.handler.merge.closed(connection, streams, (out) =>
      this.#continuity.interrupted(out, cause),
    )
    // One that is open already is not asked again when it begins to deliver.
    if (this.handler.merge.connections > 0) this.#askIfSilent(uncovered)
  }

  /** Ends backfill and writes the last checkpoints; what was forwarded must be acknowledged by then. */
  async stop(): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    this.#cancelTick?.()
    this.handler.merge.stop()
    await this.backfill.stop()
    await this.#checking
    await this.#watch.close()
  }

  writeCheckpoints(): void {
    this.#checkpoints.writeChanged()
  }

  #restore({ streams, openGaps, offsets }: Pick<Recovered, 'streams' | 'openGaps' | 'offsets'>): void {
    for (const { topic, partition, offset } of offsets)
      this.#acknowledged.restoreOffset(topic, partition, offset)
    this.ledger.restore(openGaps)
    for (const [stream, { symbol, type, memory }] of streams) {
      this.#continuity.restore(stream, symbol, type, memory)
      this.#acknowledged.restore(symbol, type, memory)
    }
    this.#checkpoints.writeStart()
    for (const { symbol, type, memory } of streams.values()) this.#openForgotten(symbol, type, memory)
  }

  /** A hole is a gap whether or not its ledger message survived. */
  #openForgotten(symbol: string, type: EventType, memory: StreamMemory): void {
    if (type === 'bookTicker') return
    const known = this.ledger.openGaps.filter((gap) => gap.symbol === symbol && gap.event_type === type)
    const ranges = known.map(({ from_id, to_id }) => ({ from: from_id, to: to_id }))
    for (const missing of subtract(memory.holes, ranges)) {
      this.ledger.open({ symbol, eventType: type, epoch: memory.epoch }, missing, 'restart', {
        fromMs: null,
        toMs: null,
      })
    }
  }

  #forwardBackfilled({ symbol, event_type: type, epoch }: IdGap, trades: readonly RestTrade[]): void {
    const stream = streamName(symbol, type)
    const { topic, partition, key, headers } = this.#router.route(stream, symbol, type, epoch)
    for (const trade of trades) {
      const { ms, us } = this.#stamp()
      this.#ports.send({
        topic,
        partition,
        key,
        headers,
        value: Buffer.from(backfillJson(symbol, type, trade, ms, us)),
        timestampMs: ms,
        mark: { symbol, type, epoch, id: trade.id, timeMs: trade.timeMs },
        queuedAtMs: this.#ports.outside.clock.monotonicMs(),
      })
      this.#continuity.filled(stream, { from: trade.id, to: trade.id })
    }
  }

  #settle({ symbol, event_type, epoch }: IdGap, lost: IdRange): void {
    const stream = streamName(symbol, event_type)
    if (epoch === this.#continuity.epochOf(stream)) this.#continuity.filled(stream, lost)
    this.#acknowledged.settle(symbol, event_type, epoch, lost)
  }

  #publishGap(gap: Gap): void {
    const { topics, outside } = this.#ports
    const topic = this.#config.topics.gaps
    this.#ports.send({
      topic,
      partition: partitionOf(gap.gap_id, topics.get(topic)?.partitions ?? 1),
      key: Buffer.from(gap.gap_id),
      value: Buffer.from(JSON.stringify(gap)),
      headers: new Map([[Buffer.from(HEADER.schema), Buffer.from(schemaHeader('gap'))]]),
      timestampMs: gap.updated_at,
      mark: null,
      queuedAtMs: outside.clock.monotonicMs(),
    })
  }

  #tick(): void {
    this.#cancelTick = this.#ports.outside.clock.schedule(CHECKPOINT_EVERY_MS, () => {
      this.writeCheckpoints()
      this.#checking = this.#checkInstances()
    })
  }

  async #checkInstances(): Promise<void> {
    try {
      await this.#watch.check()
    } catch (error) {
      if (error instanceof TapelineError) this.#ports.onFatal(error)
      else this.#ports.log.debug({ err: error }, 'The checkpoints cannot be read now')
    }
    if (!this.#stopping.signal.aborted) this.#tick()
  }
}
