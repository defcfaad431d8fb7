import { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { EXCHANGE_INFO_WEIGHT } from '../foundation/binance/rest.ts'
import type { ExchangeIdentity } from '../foundation/kafka/exchange-identity-mark.ts'
import { RECORDING_KEY } from '../foundation/market/recording.ts'
import { unlessAborted } from '../foundation/runtime/backoff.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { describeError, isTapelineError, TapelineError } from '../foundation/runtime/errors.ts'
import { startHealthServer } from '../foundation/telemetry/health-server.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { createMetrics } from '../foundation/telemetry/metrics.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { RunningService } from '../foundation/telemetry/service.ts'
import type { IngestionStatus } from '../foundation/telemetry/status.ts'
import { recoverParts } from './checkpoint/recovery.ts'
import { type IngestionConfig, topicRights } from './config.ts'
import { Connections } from './connections.ts'
import { askIdentity, claimExchangeIdentity } from './exchange-identity.ts'
import { type KafkaLiveness, kafkaLiveness } from './kafka-liveness.ts'
import { KafkaProducer } from './kafka-producer.ts'
import type { OutgoingMessage } from './messages/message.ts'
import { INGESTION_METRICS } from './metrics.ts'
import { PatientStart } from './patient-start.ts'
import { Pipeline } from './pipeline.ts'
import { type Ports, ports } from './ports.ts'
import { ingestionStatus, readiness, type StatusSources } from './status.ts'
import { type SelectionChange, SymbolSelection } from './symbol-selection.ts'
import { SymbolWatch } from './symbol-watch.ts'
import { checkpointedSymbols, firstTradeMs, streamNames } from './symbols.ts'

/**
 * Starts ingestion. Its HTTP server answers 503 until every connection is open and Kafka
 * acknowledges.
 * @throws TapelineError `ENVIRONMENT` if its port is in use
 */
export async function startIngestion(
  config: IngestionConfig,
  clock: Clock,
  log: Logger,
): Promise<RunningService> {
  const ingestion = new Ingestion(config, ports(config, clock), log)
  const http = await startHealthServer(
    { host: config.host, port: config.port, portSetting: 'INGEST_PORT' },
    {
      readiness: () => readiness(ingestion.sources),
      whyNotLive: () => ingestion.whyNotLive(),
      status: () => ingestion.status(),
      metrics: createMetrics(
        'ingestion',
        () => ({ ...ingestion.sources, status: ingestion.status() }),
        INGESTION_METRICS,
      ),
    },
  )
  ingestion.start()
  log.info({ url: http.url, exchange: config.wsUrl }, 'Ingestion started')
  return {
    url: http.url,
    ended: ingestion.ended,
    async stop(signal) {
      try {
        await ingestion.stop(signal)
        log.info('Ingestion stopped, 0 messages left')
      } finally {
        await http.close()
      }
    },
  }
}

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
    this.#producer = new KafkaProducer(config, ports, log)
    this.#liveness = kafkaLiveness(ports, [...topicRights(config).keys()], this.#producer, log)
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

  /** Delivers the queue. @throws TapelineError `STOPPED_DIRTY` if the signal aborts before that */
  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    // A start attempt that waits for Kafka or the exchange ends without starting anything.
    if (this.#starting !== null) await unlessAborted(this.#starting, signal).catch(() => {})
    await this.#connections?.stop()
    await this.#pipeline?.stop(signal)
    const unsent = await this.#producer.stop(signal)
    // The next start rewrites both: it derives checkpoints from the messages after the last one.
    const { checkpoints } = this.#config.topics
    const isLost = ({ topic, key }: OutgoingMessage) =>
      topic !== checkpoints && key?.toString() !== RECORDING_KEY
    const left = unsent.filter(isLost).length
    if (left > 0) {
      const text = `${plural(left, 'message')} received but not acknowledged by Kafka`
      const fix = 'Start ingestion again once Kafka answers; it finds the missing trades and backfills them.'
      throw new TapelineError('STOPPED_DIRTY', text, { fix })
    }
    if (unsent.length > 0)
      this.#log.warn('Kafka did not take the last checkpoints; the next start reads more of the topics')
  }

  /** The reason for which a restart would help; empty while it would not. */
  whyNotLive(): string {
    return this.#liveness.reason()
  }

  status(): IngestionStatus {
    return ingestionStatus(this.sources)
  }

  get sources(): StatusSources {
    return {
      config: this.#config,
      producer: this.#producer,
      connections: this.#connections,
      gate: this.#gate,
      selection: this.#selection,
      pipeline: this.#pipeline,
      identity: this.#identity,
      waitingFor: this.#patience.waitingFor,
      clock: this.#ports.clock,
      startedAtMs: this.#startedAtMs,
    }
  }

  async #begin(): Promise<void> {
    const { topics: names, eventTypes } = this.#config
    const { signal } = this.#stopping
    const [gate, patience] = [this.#gate, this.#patience]
    const topics = await patience.until('Kafka', () =>
      this.#ports.kafka.requireAccess('tapeline-ingestion', { topics: topicRights(this.#config) }),
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
    const symbols = this.#selection.taken
    const recovered = await patience.until('Kafka', () =>
      recoverParts(this.#ports, names, eventTypes, symbols, this.#log, signal),
    )
    const context = {
      config: this.#config,
      ports: this.#ports,
      gate,
      topics,
      symbols,
      source,
      timeUnit,
      producer: this.#producer,
      claimTopics: () => void this.#claimAgain(),
      onFatal: this.#ended.resolve,
      log: this.#log,
    }
    const pipeline = new Pipeline(context, recovered)
    this.#pipeline = pipeline
    this.#producer.start(pipeline)
    // The start records stop an older instance, so Kafka must have them before we read a frame.
    await this.#producer.allAcknowledged(names.checkpoints, signal)
    await pipeline.compareClocks(signal)
    signal.throwIfAborted()
    pipeline.start()
    this.#announce()
    const { queue } = this.#producer
    const onQuiet = () => this.#symbolWatch.askSoon()
    const connections = new Connections({ ...context, core: pipeline.core, queue, onQuiet }, this.#log)
    this.#connections = connections
    const drop = (reason: string) => {
      for (const connection of connections.all) connection.reconnect(reason, true)
    }
    pipeline.receipts.start({
      onSecond: () => {
        pipeline.onSecond()
        if (!signal.aborted) for (const slot of connections.slots) slot.watch()
      },
      onFreeze: (stoodMs) => drop(`this process did not run for ${Math.round(stoodMs / 1000)} s`),
      onStep: (step) => drop(pipeline.clockStepped(step)),
    })
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
        if (isAll || isTapelineError(error) || signal.aborted) throw error
        const fix = 'Check BINANCE_REST_URL and the network.'
        this.#log.warn({ fix }, `Symbols were not checked: ${describeError(error)}`)
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
    this.#pipeline?.core.rates.halt(streamNames(this.#selection.halted, eventTypes))
    this.#connections?.change(streamNames(joined, eventTypes), streamNames(left, eventTypes))
    if (added.length + joined.length + left.length > 0) this.#announce()
  }

  #announce(): void {
    this.#pipeline?.publisher.announce(this.#config, this.#selection.subscribed)
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
}
