import { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { EXCHANGE_INFO_WEIGHT } from '../foundation/binance/rest.ts'
import type { ExchangeIdentity } from '../foundation/kafka/exchange-identity-mark.ts'
import { RECORDING_KEY } from '../foundation/market/recording.ts'
import { unlessAborted } from '../foundation/runtime/backoff.ts'
import { sleepOn } from '../foundation/runtime/clock.ts'
import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { IngestionStatus } from '../foundation/telemetry/status.ts'
import { VERSION } from '../foundation/telemetry/version.ts'
import { type IngestionConfig, topicRights } from './config.ts'
import type { ConnectionSlot } from './connection-slot.ts'
import { Connections } from './connections.ts'
import { askIdentity, claimExchangeIdentity } from './exchange-identity.ts'
import { NO_FRAMES } from './frame-handler.ts'
import { KafkaLiveness } from './kafka-liveness.ts'
import { KafkaProducer } from './kafka-producer.ts'
import { type IngestionMetricValues, ingestionMetricValues, openGapStatus } from './metric-values.ts'
import { openPipeline } from './open-pipeline.ts'
import { PatientStart } from './patient-start.ts'
import type { Pipeline } from './pipeline.ts'
import type { PipelineContext, RecoveredFields } from './pipeline-context.ts'
import type { Ports } from './ports.ts'
import { whyNotReady } from './readiness.ts'
import { type SelectionChange, SymbolSelection } from './symbol-selection.ts'
import { SymbolWatch } from './symbol-watch.ts'
import { checkpointedSymbols, firstTradeMs, streamNames } from './symbols.ts'

const ROOM_CHECK_MS = 100

/** Runs ingestion: connections feed the pipeline, the pipeline feeds the queue to Kafka. */
export class Ingestion {
  readonly #config: IngestionConfig
  readonly #ports: Ports
  readonly #log: Logger
  readonly #startedAtMs: number
  readonly #producer: KafkaProducer
  readonly #stopping = new AbortController()
  readonly #ended = Promise.withResolvers<unknown>()
  readonly #selection: SymbolSelection
  readonly #symbolWatch: SymbolWatch
  #connections: Connections | null = null
  #pipeline: Pipeline | null = null
  #identity: ExchangeIdentity | null = null
  #starting: Promise<void> | null = null
  readonly #liveness: KafkaLiveness
  readonly #gate: ExchangeGate
  readonly #patience: PatientStart

  constructor(config: IngestionConfig, ports: Ports, log: Logger) {
    this.#config = config
    this.#ports = ports
    this.#log = log
    this.#startedAtMs = ports.clock.monotonicMs()
    this.#gate = new ExchangeGate(ports.clock, ports.random, (level, details, text) =>
      log[level](details, text),
    )
    this.#patience = new PatientStart(ports, config.backoff, this.#stopping.signal, log)
    this.#selection = new SymbolSelection(config)
    this.#symbolWatch = new SymbolWatch(
      {
        clock: ports.clock,
        everyMs: config.symbolsEveryMs,
        ask: (signal) => this.#askSymbols(signal),
        firstTradeMs: (symbol, signal) => firstTradeMs(this.#pipeline?.rest, symbol, signal),
        onChange: (change) => this.#changeSymbols(change),
      },
      this.#selection,
      log,
    )
    this.#producer = new KafkaProducer(
      config,
      ports,
      {
        onAcknowledged: (messages, next) => this.#pipeline?.onAcknowledged(messages, next),
        onDiscarded: (message, cause) => this.#pipeline?.onDiscarded(message, cause),
        onKept: (message) => this.#pipeline?.discarded.onKept(message),
        onDefect: this.#ended.resolve,
        onTaken: () => {
          if (!this.#producer.queue.isFull)
            for (const connection of this.#connections?.all ?? []) connection.resume()
        },
      },
      log,
    )
    this.#liveness = new KafkaLiveness(ports, [...topicRights(config.topics).keys()], this.#producer, log)
  }

  /** Resolves with the error that ended it; never resolves when it is stopped. */
  get ended(): Promise<unknown> {
    return this.#ended.promise
  }

  start(): void {
    this.#starting ??= this.#begin().catch((error: unknown) => {
      if (!this.#stopping.signal.aborted) this.#ended.resolve(error)
    })
  }

  /**
   * Stops reading, delivers the queue and writes the last checkpoints.
   *
   * @throws TapelineError `STOPPED_DIRTY` if the signal aborts before Kafka acknowledged everything
   */
  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    // A start attempt that waits for Kafka or the exchange ends without starting anything.
    if (this.#starting !== null) await unlessAborted(this.#starting, signal).catch(() => {})
    await this.#connections?.stop()
    await this.#pipeline?.stop()
    if (this.#pipeline !== null) await this.#pipeline.writeLastCheckpoints(signal)
    const unsent = await this.#producer.stop(signal)
    // The next start rewrites both: it derives checkpoints from the messages after the last one.
    const { checkpoints } = this.#config.topics
    const left = unsent.filter(
      ({ topic, key }) => topic !== checkpoints && key?.toString() !== RECORDING_KEY,
    ).length
    if (left > 0) {
      throw new TapelineError(
        'STOPPED_DIRTY',
        `${plural(left, 'message')} received but not acknowledged by Kafka`,
        { fix: 'Start ingestion again once Kafka answers; it finds the missing trades and backfills them.' },
      )
    }
    if (unsent.length > 0)
      this.#log.warn('Kafka did not take the last checkpoints; the next start reads more of the topics')
  }

  readiness(): { ready: boolean; reason: string } {
    const nowMs = this.#ports.clock.monotonicMs()
    const waitingFor = this.#patience.waitingFor || this.#selection.problem
    const refused = this.#gate.summary
    const reason = whyNotReady(this.#producer, this.#pipeline, waitingFor, this.#slots, refused, nowMs)
    return { ready: reason === '', reason }
  }

  /** The reason for which a restart would help; empty while it would not. */
  whyNotLive(): string {
    return this.#liveness.reason()
  }

  status(): IngestionStatus {
    const nowMs = this.#ports.clock.monotonicMs()
    const pipeline = this.#pipeline
    const handler = pipeline?.handler
    return {
      service: 'ingestion',
      version: VERSION,
      ...this.readiness(),
      source: this.#identity?.source ?? null,
      timeUnit: this.#identity?.timeUnit ?? null,
      uptimeMs: Math.round(nowMs - this.#startedAtMs),
      connections: this.#slots.flatMap((slot) => slot.status()),
      rollovers: this.#slots.reduce((sum, { rollovers }) => sum + rollovers, 0),
      streams: handler?.rates.status(this.#connections?.streams ?? [], nowMs) ?? {},
      counters: {
        ...(handler?.counters ?? NO_FRAMES),
        backfilled: pipeline?.backfill.backfilled ?? 0,
        acknowledged: this.#producer.batches.acknowledged,
        discarded: this.#producer.batches.discarded,
        queued: this.#producer.queued,
        inFlight: this.#producer.inFlight,
      },
      openGaps: openGapStatus(pipeline),
      refusals: this.#gate.status(),
      ignoredByReason: handler?.reasons('ignored') ?? {},
      rejectedByReason: handler?.reasons('rejected') ?? {},
      rejectedStreams: handler?.rejections.status(nowMs) ?? [],
      queueBytes: this.#producer.queue.bytes + this.#producer.batches.heldBytes,
      heldPartitions: this.#producer.batches.heldPartitions(nowMs),
      kafkaProblem: this.#producer.batches.problem,
      oldestUnacknowledgedMs: Math.round(this.#producer.oldestUnacknowledgedMs(nowMs)),
      eventToReceiptMs: handler?.eventToReceipt(nowMs) ?? { count: 0, p50: 0, p90: 0, p99: 0, max: 0 },
      clockOffsetMs: handler?.leastEventToReceiptMs(nowMs) ?? null,
    }
  }

  metricValues(): IngestionMetricValues {
    const { clock } = this.#ports
    return ingestionMetricValues({
      status: this.status(),
      config: this.#config,
      producer: this.#producer,
      slots: this.#slots,
      gate: this.#gate,
      selection: this.#selection,
      pipeline: this.#pipeline,
      nowMs: clock.monotonicMs(),
      wallMs: clock.wallMicros() / 1000,
    })
  }

  async #begin(): Promise<void> {
    const { topics: names, eventTypes } = this.#config
    const { signal } = this.#stopping
    const [gate, patience] = [this.#gate, this.#patience]
    const topics = await patience.until('Kafka', () =>
      this.#ports.kafka.requireAccess('tapeline-ingestion', { topics: topicRights(names) }),
    )
    const { source, timeUnit } = await patience.until('The exchange', () =>
      askIdentity(this.#ports, gate, this.#config, signal),
    )
    patience.waitingFor = 'the symbols of the exchange are not loaded yet'
    await this.#selectSymbols()
    // Before the first message, check that the topics belong to this exchange.
    await this.#claim({ source, timeUnit })
    this.#identity = { source, timeUnit }
    patience.waitingFor = 'reading the checkpoints and messages in the topics'
    const pipeline = await patience.until('Kafka', () =>
      openPipeline(
        this.#config,
        this.#pipelineContext({ topics, symbols: this.#selection.taken, source, timeUnit }),
        signal,
      ),
    )
    this.#pipeline = pipeline
    this.#producer.start()
    // The start records stop an older instance, so Kafka must have them before we read a frame.
    await this.#producer.allAcknowledged(names.checkpoints, signal)
    await pipeline.compareClocks(signal)
    signal.throwIfAborted()
    pipeline.start()
    this.#announce()
    const connections = new Connections(
      {
        config: this.#config,
        ports: this.#ports,
        gate,
        pipeline,
        source,
        timeUnit,
        whenRoom: (aborted) => this.#whenRoom(aborted),
        onQuiet: () => this.#symbolWatch.askSoon(),
        onFatal: this.#ended.resolve,
      },
      this.#log,
    )
    this.#connections = connections
    patience.waitingFor = ''
    connections.change(streamNames(this.#selection.subscribed, eventTypes), [])
    void this.#liveness.watch(signal)
    this.#symbolWatch.run(signal).catch((error: unknown) => {
      if (!signal.aborted) this.#ended.resolve(error)
    })
  }

  /** A named list works without the exchange's answer; `*` waits for it. */
  async #selectSymbols(): Promise<void> {
    const { signal } = this.#stopping
    const { isAll } = this.#selection
    const statuses = await this.#patience.until('The exchange', async () => {
      if (isAll) await this.#gate.wait('rest', signal)
      try {
        return await this.#askSymbols(signal)
      } catch (error) {
        if (isAll || error instanceof TapelineError || signal.aborted) throw error
        this.#log.warn(
          { fix: 'Check BINANCE_REST_URL and the network.' },
          `Symbols were not checked: ${describeError(error)}`,
        )
        return null
      }
    })
    const isAsked = isAll || (statuses !== null && this.#selection.unlisted(statuses).length > 0)
    const known = isAsked
      ? await this.#patience.until('Kafka', () =>
          checkpointedSymbols(this.#ports.kafka, this.#config.topics.checkpoints),
        )
      : new Set<string>()
    this.#selection.begin(statuses, known)
  }

  async #askSymbols(signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    await this.#pipeline?.rest.spend(EXCHANGE_INFO_WEIGHT, signal)
    const statuses = await this.#gate.attempt('rest', () => this.#ports.exchange.symbols(signal))
    if (statuses.size === 0) throw new Error('exchangeInfo lists no symbols')
    return statuses
  }

  async #changeSymbols({ added, listed, joined, left }: SelectionChange): Promise<void> {
    const { signal } = this.#stopping
    const { eventTypes, topics } = this.#config
    if (added.length > 0) {
      this.#pipeline?.add(added, listed)
      // As at the start: an older instance must be able to stop before the first frame is read.
      await this.#producer.allAcknowledged(topics.checkpoints, signal)
    }
    this.#pipeline?.handler.rates.halt(streamNames(this.#selection.halted, eventTypes))
    this.#connections?.change(streamNames(joined, eventTypes), streamNames(left, eventTypes))
    if (added.length + joined.length + left.length > 0) this.#announce()
  }

  /** Announces in the topics what is recorded from now on. */
  #announce(): void {
    this.#pipeline?.publisher.announce(this.#config, this.#selection.subscribed)
  }

  get #slots(): readonly ConnectionSlot[] {
    return this.#connections?.slots ?? []
  }

  #pipelineContext(
    known: Pick<PipelineContext, 'topics' | 'symbols' | 'source' | 'timeUnit'>,
  ): Omit<PipelineContext, RecoveredFields> {
    return {
      ports: this.#ports,
      gate: this.#gate,
      ...known,
      send: (message) => {
        this.#producer.queue.push(message)
        if (this.#producer.queue.isFull)
          for (const connection of this.#connections?.all ?? []) connection.pause()
      },
      isHeld: (place) => this.#producer.batches.isHeld(place),
      settled: (signal) => this.#producer.settled(signal),
      whenRoom: (signal) => this.#whenRoom(signal),
      claimTopics: () => void this.#claimAgain(),
      onSecond: () => {
        if (!this.#stopping.signal.aborted) for (const slot of this.#slots) slot.watch()
      },
      dropConnections: (reason) => {
        for (const connection of this.#connections?.all ?? []) connection.reconnect(reason, true)
      },
      onFatal: this.#ended.resolve,
      log: this.#log,
    }
  }

  #claim(identity: ExchangeIdentity): Promise<void> {
    const { topics } = this.#config
    return this.#patience.until('Kafka', () => claimExchangeIdentity(this.#ports, topics, identity))
  }

  async #claimAgain(): Promise<void> {
    try {
      if (this.#identity !== null) await this.#claim(this.#identity)
      if (this.#connections !== null) this.#patience.waitingFor = ''
    } catch (error) {
      if (!this.#stopping.signal.aborted) this.#ended.resolve(error)
    }
  }

  async #whenRoom(signal: AbortSignal): Promise<void> {
    while (this.#producer.queue.isFull) await sleepOn(this.#ports.clock, ROOM_CHECK_MS, signal)
  }
}
