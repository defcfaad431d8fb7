import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { type BackoffPolicy, delayFor } from '../foundation/runtime/backoff.ts'
import { outsideText } from '../foundation/runtime/outside-text.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConnectionStatus } from '../foundation/telemetry/status.ts'
import { type Action, LIFE_CYCLE, type LifeEvent, type Report, type State } from './connection/life-cycle.ts'
import { StallDetector } from './connection/stall-detector.ts'
import type { StreamRates } from './connection/stream-rates.ts'
import type { ConnectionEnd, ConnectionListener, StreamSink } from './connection-listener.ts'
import type { ControlFrame } from './core.ts'
import type { Ports } from './ports.ts'
import { WsConsumer, type WsConsumerOptions } from './ws-consumer.ts'

export interface ConnectionSlotOptions {
  readonly plan: ConnectionPlan
  readonly rates: StreamRates
  readonly ports: Pick<Ports, 'clock' | 'random'> & {
    readonly exchange: Pick<Ports['exchange'], 'openSocket'>
  }
  /** Shared by all connections of the process, because the exchange counts handshakes by IP. */
  readonly gate: ExchangeGate
  readonly backoff: BackoffPolicy
  /** Age before which the slot replaces a connection; the exchange closes it after 24 hours. */
  readonly maxAgeMs: number
  /** Returns an id that no other connection of the process has. */
  readonly nextId: () => number
  readonly sink: StreamSink
  readonly queue: WsConsumerOptions['queue']
  readonly checkIdentity: WsConsumerOptions['checkIdentity']
  /** Called when streams have gone quiet and their subscription is renewed. */
  readonly onQuiet: (streams: readonly string[]) => void
  /** Called when the exchange cannot be used and waiting does not help. */
  readonly onFatal: (error: unknown) => void
}

/** Both connections deliver for this long: longer than continuity waits for the older one. */
const OVERLAP_MS = 6000

/**
 * A successor that has not opened, or has delivered nothing while events were due, is abandoned
 * after this time.
 */
const SILENT_SUCCESSOR_MS = 60_000

/** The wait before the next successor; doubles with each one abandoned in a row. */
const RETRY_MS = 5000
const RETRY_MAX_MS = 3_600_000

/** A connection silent for so long is reported; later if its streams are slower. */
const SILENT_MS = 60_000

/**
 * Share of the age by which replacements are spread, so that connections that opened together are
 * not replaced together.
 */
const AGE_SPREAD = 0.05

/**
 * Keeps one connection open, and replaces it without a break: before it is too old, when the
 * exchange announces a shutdown, and when a stream stalls. `LIFE_CYCLE` decides; this class owns
 * the connections and timers.
 */
export class ConnectionSlot implements ConnectionListener<WsConsumer> {
  /** The streams that its connections deliver. */
  plan: ConnectionPlan
  readonly #options: ConnectionSlotOptions
  readonly #log: Logger
  readonly #stalls: StallDetector
  #state: State = 'connecting'
  #current: WsConsumer
  #successor: WsConsumer | null = null
  /** Consecutive connections in `#current` that ended before they delivered anything. */
  #failures = 0
  #attempts = 1
  #reconnectsAtOnce = false
  #retryMs = RETRY_MS
  /** When the current connection is due for replacement, on the monotonic clock. */
  #dueAtMs: number | null = null
  #cancelAge = () => {}
  /** Cancels the timer of the state. */
  #cancelTimer = () => {}
  #leaving: Promise<void> = Promise.resolve()
  /** Connections that were replaced without a break. */
  rollovers = 0
  /** Open connections that ended unexpectedly. */
  lost = 0

  constructor(options: ConnectionSlotOptions, log: Logger) {
    this.plan = options.plan
    this.#options = options
    this.#log = log
    this.#current = this.#create(options.nextId(), 1)
    this.#stalls = new StallDetector(options.rates, {
      resubscribe: (streams) => {
        options.onQuiet(streams)
        this.#current.resubscribe(streams)
      },
      reconnect: (reason, streams) => {
        options.onQuiet(streams)
        this.rollOver(reason)
      },
    })
  }

  /** The current connection and, during a rollover, its successor. */
  get connections(): readonly WsConsumer[] {
    return this.#successor === null ? [this.#current] : [this.#current, this.#successor]
  }

  /** True while at least one connection is open. */
  get isOpen(): boolean {
    return this.connections.some((connection) => connection.isOpen)
  }

  start(): void {
    this.#current.start(0)
  }

  /** Adds and removes streams: on open connections now, on later ones when they open. */
  follow(plan: ConnectionPlan): void {
    this.plan = plan
    for (const connection of this.connections) connection.follow(plan)
  }

  async stop(): Promise<void> {
    this.#on('stop', 'stopping')
    await Promise.all([...this.connections.map((connection) => connection.stop()), this.#leaving])
  }

  status(): ConnectionStatus[] {
    const dueInMs = this.#dueAtMs === null ? null : this.#dueAtMs - this.#nowMs()
    return this.connections.map((connection) => ({
      ...connection.status(),
      rolloverInMs:
        connection === this.#current && dueInMs !== null ? Math.max(0, Math.round(dueInMs)) : null,
    }))
  }

  /**
   * Returns how long only pings have arrived, in milliseconds, if that is longer than the rates of
   * its streams make likely. Null if not, and while a connection is paused.
   */
  silentMs(nowMs: number): number | null {
    const open = this.connections.filter(({ isOpen }) => isOpen)
    if (open.length === 0 || open.some(({ isPaused }) => isPaused)) return null
    const heardMs = Math.max(
      ...open.map(({ lastDataAtMs, openedAtMs }) => lastDataAtMs ?? openedAtMs ?? nowMs),
    )
    const silentMs = nowMs - heardMs
    return silentMs > Math.max(SILENT_MS, this.#patienceMs) ? silentMs : null
  }

  /** Opens a second connection, which takes over once it delivers. */
  rollOver(reason: string): void {
    this.#on('replace', reason)
  }

  /** Checks for streams that have gone quiet. Call it every few seconds. */
  watch(): void {
    // A paused socket delivers nothing, which is no fault of the exchange. A new one needs time.
    const { id, completeAtMs, isPaused } = this.#current
    if (completeAtMs === null || isPaused || this.#state === 'overlap-delivering') return
    this.#stalls.check(this.plan.streams, this.#nowMs(), id, completeAtMs)
  }

  #on(event: LifeEvent, reason: string): void {
    const transition = LIFE_CYCLE[this.#state][event]
    if (transition === null) return
    const [next, ...actions] = transition
    this.#cancelTimer()
    this.#state = next
    for (const action of actions) this.#act(action, reason)
    this.#enter(next, reason)
  }

  #act(action: Action, reason: string): void {
    switch (action) {
      case 'reconnect':
        this.#failures++
        this.#attempts++
        this.#current = this.#create(this.#current.id, this.#attempts)
        this.#current.start(this.#reconnectWaitMs())
        return
      case 'open successor':
        this.#log.info({ reason }, 'Replacing a connection')
        this.#successor = this.#create(this.#options.nextId(), 1)
        this.#successor.start(0)
        return
      case 'abandon successor':
        this.#log.warn({ connection: this.#successor?.id }, `Abandoned a new connection: ${reason}`)
        this.#leave(this.#successor)
        this.#successor = null
        return
      case 'promote successor':
        this.#leave(this.#current)
        this.#current = this.#successor ?? this.#current
        this.#successor = null
        this.#failures = 0
        this.#attempts = 1
        if (this.#current.isDelivering) this.#retryMs = RETRY_MS
        return
      case 'count rollover':
        this.rollovers++
    }
  }

  #enter(state: State, reason: string): void {
    switch (state) {
      case 'connecting':
        this.#forgetAge()
        if (this.#current.isOpen) this.#on('current opened', reason)
        return
      case 'single':
        this.#replaceBeforeTooOld()
        return
      case 'overlap-opening':
        this.#limitSilence()
        return
      case 'overlap-delivering':
        this.#after(OVERLAP_MS, () => this.#on('overlap over', reason))
        return
      case 'retry-wait':
        this.#after(this.#retryMs, () => this.#on('retry due', reason))
        this.#retryMs = Math.min(RETRY_MAX_MS, this.#retryMs * 2)
        return
      case 'stopped':
        this.#forgetAge()
    }
  }

  /**
   * Abandons a successor that is not open, or that delivers nothing while the old one does or
   * events are due.
   */
  #limitSilence(): void {
    const sinceMs = this.#nowMs()
    const look = () => {
      const openedAtMs = this.#successor?.openedAtMs ?? null
      const oldDelivers = (this.#current.lastDataAtMs ?? Number.NEGATIVE_INFINITY) > (openedAtMs ?? sinceMs)
      const isDue = oldDelivers || this.#nowMs() - sinceMs >= this.#patienceMs
      if (openedAtMs === null) this.#on('successor silent', 'it has not opened')
      else if (isDue) this.#on('successor silent', 'it has delivered nothing')
      // If all symbols trade rarely, a minute without a trade means nothing.
      else this.#after(SILENT_SUCCESSOR_MS, look)
    }
    this.#after(SILENT_SUCCESSOR_MS, look)
  }

  #replaceBeforeTooOld(): void {
    const { clock, random } = this.#options.ports
    this.#forgetAge()
    const nowMs = clock.monotonicMs()
    const ageMs = this.#options.maxAgeMs * (1 - AGE_SPREAD * random())
    this.#dueAtMs = (this.#current.openedAtMs ?? nowMs) + ageMs
    this.#cancelAge = clock.schedule(Math.max(0, this.#dueAtMs - nowMs), () =>
      this.rollOver('it is about to reach its maximum age'),
    )
  }

  #forgetAge(): void {
    this.#cancelAge()
    this.#dueAtMs = null
  }

  #after(ms: number, act: () => void): void {
    this.#cancelTimer = this.#options.ports.clock.schedule(ms, act)
  }

  #reconnectWaitMs(): number {
    const { backoff, ports } = this.#options
    return this.#reconnectsAtOnce ? 0 : delayFor(this.#failures, backoff, ports.random())
  }

  #leave(connection: WsConsumer | null): void {
    if (connection !== null) this.#leaving = Promise.all([this.#leaving, connection.stop()]).then(() => {})
  }

  #create(id: number, attempt: number): WsConsumer {
    const { gate, ports, sink, queue, checkIdentity } = this.#options
    const options = { id, attempt, plan: this.plan, gate, ports, sink, queue, checkIdentity }
    return new WsConsumer(options, this, this.#log)
  }

  onReport(
    connection: WsConsumer,
    report: Exclude<Report, 'shutdown' | 'closed'>,
    reason = 'the connection has closed',
  ): void {
    this.#tell(connection, report, reason)
    if (report === 'delivering' && connection === this.#current) this.#retryMs = RETRY_MS
    if (report !== 'opened' || connection !== this.#successor || this.#state !== 'overlap-opening') return
    // The silence limit restarts when the successor opens.
    this.#cancelTimer()
    this.#limitSilence()
  }

  /** Ignores a connection that was replaced or abandoned. */
  #tell(connection: WsConsumer, report: Report, reason: string): void {
    if (connection === this.#current) this.#on(`current ${report}`, reason)
    else if (connection === this.#successor) this.#on(`successor ${report}`, reason)
  }

  onFatal(error: unknown): void {
    this.#options.onFatal(error)
  }

  onClosed(connection: WsConsumer, { streams, hasDelivered, reconnectsAtOnce }: ConnectionEnd): void {
    if (connection === this.#current) {
      if (streams !== null && this.#state !== 'stopped') this.lost++
      if (hasDelivered) this.#failures = 0
      this.#reconnectsAtOnce = reconnectsAtOnce
    }
    this.#tell(connection, 'closed', 'the connection has closed')
  }

  onControl(connection: WsConsumer, { control, detail }: ControlFrame): void {
    if (control === 'serverShutdown') {
      this.#tell(connection, 'shutdown', 'the exchange is shutting this server down')
      return
    }
    if (control === 'error')
      this.#log.warn(
        { connection: connection.id, detail: outsideText(detail) },
        'The exchange refused a request',
      )
    connection.onAnswer(detail)
  }

  get #patienceMs(): number {
    return this.#options.rates.connectionPatienceMs(this.plan.streams)
  }

  #nowMs(): number {
    return this.#options.ports.clock.monotonicMs()
  }
}
