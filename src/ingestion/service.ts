import { planConnections } from '../binance/connection-plan.ts'
import { describeError, TapelineError } from '../errors.ts'
import type { TopicMetadata } from '../kafka/topic-metadata.ts'
import { startHealthServer } from '../telemetry/health-server.ts'
import type { Logger } from '../telemetry/log.ts'
import { createMetrics } from '../telemetry/metrics.ts'
import type { RunningService } from '../telemetry/service.ts'
import type { IngestionStatus } from '../telemetry/status.ts'
import { VERSION } from '../telemetry/version.ts'
import { AttemptLimit } from '../timing/attempt-limit.ts'
import { delayFor, sleep } from '../timing/backoff.ts'
import type { Clock } from '../timing/clock.ts'
import type { IngestionConfig } from './config.ts'
import { type ControlFrame, FrameHandler } from './frame-handler.ts'
import { KafkaProducer } from './kafka-producer.ts'
import { MessageQueue } from './message-queue.ts'
import { ingestionMetrics } from './metrics.ts'
import { receiptStamper } from './receipt-stamp.ts'
import { Router } from './router.ts'
import { claimSource } from './source.ts'
import { resolveSymbols, streamNames } from './symbols.ts'
import { WsConsumer } from './ws-consumer.ts'

/** Half of what the exchange allows an IP. */
const MAX_ATTEMPTS = 150
const ATTEMPTS_WINDOW_MS = 5 * 60_000

/** Kafka that has not acknowledged for this long is not producing. */
const PRODUCING_LIMIT_MS = 10_000

/** A process that was stopped, or hung, for longer holds frames in kernel buffers that would be stamped too late. */
const STALL_LIMIT_MS = 5000
const STALL_CHECK_MS = 1000

const ROOM_CHECK_MS = 100

/**
 * The ingestion service: combined streams to Kafka. Answers over HTTP from the first moment on, 503 until every
 * connection is open and Kafka acknowledges.
 *
 * @throws TapelineError `ENVIRONMENT` when its port is taken
 */
export async function startIngestion(
  config: IngestionConfig,
  clock: Clock,
  log: Logger,
): Promise<RunningService> {
  const ingestion = new Ingestion(config, clock, log)
  const http = await startHealthServer(
    { host: config.host, port: config.port, portSetting: 'INGEST_PORT' },
    {
      readiness: () => ingestion.readiness(),
      status: () => ingestion.status(),
      metrics: createMetrics(ingestionMetrics(() => ingestion.status())),
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
        log.info('Ingestion stopped')
      } finally {
        await http.close()
      }
    },
  }
}

class Ingestion {
  readonly #config: IngestionConfig
  readonly #clock: Clock
  readonly #log: Logger
  readonly #startedAtMs: number
  readonly #queue: MessageQueue
  readonly #producer: KafkaProducer
  readonly #stopping = new AbortController()
  readonly #ended = Promise.withResolvers<unknown>()
  #connections: WsConsumer[] = []
  #handler: FrameHandler | null = null
  #source: string | null = null
  #starting: Promise<void> | null = null
  #stallWatch: NodeJS.Timeout | null = null
  /** Why it is not running yet. */
  #waitingFor = 'Kafka has not answered yet'

  constructor(config: IngestionConfig, clock: Clock, log: Logger) {
    this.#config = config
    this.#clock = clock
    this.#log = log
    this.#startedAtMs = clock.monotonicMs()
    this.#queue = new MessageQueue(config.queueMaxBytes)
    this.#producer = new KafkaProducer(config, clock, this.#queue, () => this.#afterAcknowledged(), log)
  }

  get ended(): Promise<unknown> {
    return this.#ended.promise
  }

  start(): void {
    this.#starting ??= this.#begin().catch((error: unknown) => {
      if (!this.#stopping.signal.aborted) this.#ended.resolve(error)
    })
  }

  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    if (this.#stallWatch !== null) clearInterval(this.#stallWatch)
    await this.#starting
    await Promise.all(this.#connections.map((connection) => connection.stop()))
    const left = await this.#producer.stop(signal)
    if (left > 0) {
      throw new TapelineError(
        'STOPPED_DIRTY',
        `${left} messages were received and not acknowledged by Kafka`,
        {
          fix: 'Start ingestion again once Kafka answers.',
        },
      )
    }
  }

  readiness(): { ready: boolean; reason: string } {
    const reason = this.#whyNotReady()
    return { ready: reason === '', reason }
  }

  status(): IngestionStatus {
    const nowMs = this.#clock.monotonicMs()
    const counters = this.#handler?.counters ?? {
      received: 0,
      forwarded: 0,
      control: 0,
      ignored: 0,
      rejected: 0,
    }
    return {
      service: 'ingestion',
      version: VERSION,
      ...this.readiness(),
      source: this.#source,
      uptimeMs: Math.round(nowMs - this.#startedAtMs),
      connections: this.#connections.map((connection) => connection.status()),
      streams: this.#handler?.streams(nowMs) ?? {},
      counters: {
        ...counters,
        acknowledged: this.#producer.acknowledged,
        queued: this.#queue.events,
        inFlight: this.#producer.inFlight,
      },
      ignoredByReason: this.#handler?.reasons('ignored') ?? {},
      rejectedByReason: this.#handler?.reasons('rejected') ?? {},
      queueBytes: this.#queue.bytes,
      oldestUnacknowledgedMs: Math.round(this.#producer.oldestUnacknowledgedMs(nowMs)),
      eventToReceiptMs: this.#handler?.eventToReceipt(nowMs) ?? { count: 0, p50: 0, p90: 0, p99: 0, max: 0 },
    }
  }

  #whyNotReady(): string {
    if (this.#waitingFor !== '') return this.#waitingFor
    const down = this.#connections.filter((connection) => !connection.isOpen).length
    if (down > 0) return `${down} of ${this.#connections.length} connections to the exchange are down`
    const waitedMs = this.#producer.oldestUnacknowledgedMs(this.#clock.monotonicMs())
    return waitedMs > PRODUCING_LIMIT_MS
      ? `Kafka has not acknowledged for ${Math.round(waitedMs / 1000)} s`
      : ''
  }

  async #begin(): Promise<void> {
    const { signal } = this.#stopping
    const { topics: names, wsUrl, eventTypes, backoff } = this.#config
    const topics = await this.#waitForTopics([
      names.trades,
      names.bookTicker,
      names.checkpoints,
      names.deadLetters,
    ])
    this.#waitingFor = 'the symbols are not checked yet'
    const symbols = await resolveSymbols(this.#config, this.#log, signal)
    const router = new Router(names, topics)
    const handler = new FrameHandler({
      stamp: receiptStamper(() => this.#clock.wallMicros()),
      monotonicMs: () => this.#clock.monotonicMs(),
      route: (stream, symbol, type) => router.route(stream, symbol, type),
      deadLettersTopic: names.deadLetters,
      send: (message) => {
        this.#queue.push(message)
        this.#producer.notice()
        if (this.#queue.isFull) for (const connection of this.#connections) connection.pause()
      },
    })
    this.#handler = handler
    this.#producer.start()
    const attempts = new AttemptLimit(MAX_ATTEMPTS, ATTEMPTS_WINDOW_MS)
    const whenRoom = (aborted: AbortSignal) => this.#whenRoom(aborted)
    this.#connections = planConnections(wsUrl, streamNames(symbols, eventTypes)).map((plan, id) => {
      const connection: WsConsumer = new WsConsumer(
        { id, plan, backoff, attempts, whenRoom },
        {
          onOpen: (source) => this.#onOpen(source),
          onFrame: (frame) => handler.handle(frame, (control) => this.#onControl(connection, control)),
          onFatal: this.#ended.resolve,
        },
        this.#log,
      )
      return connection
    })
    for (const connection of this.#connections) connection.start()
    this.#waitingFor = ''
    this.#watchForStalls()
  }

  async #waitForTopics(names: readonly string[]): Promise<ReadonlyMap<string, TopicMetadata>> {
    for (let failures = 1; ; failures++) {
      try {
        return await this.#producer.topics(names)
      } catch (error) {
        this.#stopping.signal.throwIfAborted()
        this.#waitingFor = `Kafka cannot be used yet: ${describeError(error)}`
        const fix = error instanceof TapelineError ? { fix: error.fix } : { err: error }
        this.#log.warn(fix, `Kafka cannot be used yet, trying again: ${describeError(error)}`)
        await sleep(delayFor(failures, this.#config.backoff, Math.random()), this.#stopping.signal)
      }
    }
  }

  /** Every connection must lead to the same exchange, and the topics must be that exchange's. */
  async #onOpen(source: string): Promise<void> {
    if (source === this.#source) return
    await claimSource(this.#config, source)
    this.#source = source
  }

  #onControl(connection: WsConsumer, { control, detail }: ControlFrame): void {
    if (control === 'error') this.#log.error({ detail }, 'The exchange refused a request')
    if (control === 'serverShutdown') connection.reconnect('the exchange shuts this server down', true)
  }

  #afterAcknowledged(): void {
    if (!this.#queue.isFull) for (const connection of this.#connections) connection.resume()
  }

  async #whenRoom(signal: AbortSignal): Promise<void> {
    while (this.#queue.isFull) await sleep(ROOM_CHECK_MS, signal)
  }

  /** Timers run before sockets are read, so after a stall the sockets are gone before a late frame is stamped. */
  #watchForStalls(): void {
    let lastMs = this.#clock.monotonicMs()
    this.#stallWatch = setInterval(() => {
      const nowMs = this.#clock.monotonicMs()
      const stalledMs = nowMs - lastMs - STALL_CHECK_MS
      lastMs = nowMs
      if (stalledMs < STALL_LIMIT_MS) return
      const seconds = Math.round(stalledMs / 1000)
      for (const connection of this.#connections)
        connection.reconnect(`this process stood still for ${seconds} s`, true)
    }, STALL_CHECK_MS)
  }
}
