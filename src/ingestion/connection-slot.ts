import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import { type BackoffPolicy, delayFor } from '../foundation/runtime/backoff.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConnectionStatus } from '../foundation/telemetry/status.ts'
import { type Action, LIFE_CYCLE, type LifeEvent, type State } from './connection/life-cycle.ts'
import { StallDetector } from './connection/stall-detector.ts'
import type { StreamRates } from './connection/stream-rates.ts'
import type { Ports } from './ports.ts'
import {
  type ConnectionEnd,
  type ConnectionListener,
  type Report,
  WsConsumer,
  type WsConsumerOptions,
} from './ws-consumer.ts'

export interface ConnectionSlotOptions extends Omit<WsConsumerOptions, 'id' | 'attempt'> {
  readonly rates: StreamRates
  readonly ports: WsConsumerOptions['ports'] & Pick<Ports, 'random'>
  readonly backoff: BackoffPolicy
  /** Age before which the slot replaces a connection; the exchange closes it after 24 hours. */
  readonly maxAgeMs: number
  readonly nextId: () => number
  /** Called when streams have gone quiet and their subscription is renewed. */
  readonly onQuiet: (streams: readonly string[]) => void
}

/** Both connections deliver for this long: longer than continuity waits for the older one. */
const OVERLAP_MS = 6000

/** A successor that has not opened, or delivers nothing although events are due, is abandoned. */
const SILENT_SUCCESSOR_MS = 60_000

/** The wait before the next successor; doubles with each one abandoned in a row. */
const RETRY_MS = 5000
const RETRY_MAX_MS = 3_600_000

/** A connection silent for so long is reported; later if its streams are slower. */
const SILENT_MS = 60_000

/** Spreads replacements by this share of the age, so that not all happen together. */
const AGE_SPREAD = 0.05

/** What the report of a connection means for its slot; null if nothing. */
const OF_CURRENT: Readonly<Record<Report | 'closed', LifeEvent | null>> = {
  opened: 'current opened',
  delivering: null,
  refused: 'current refused',
  shutdown: 'replace',
  closed: 'current closed',
}
const OF_SUCCESSOR: Readonly<Record<Report | 'closed', LifeEvent>> = {
  opened: 'successor opened',
  delivering: 'successor delivering',
  refused: 'successor failed',
  shutdown: 'successor shutdown',
  closed: 'successor failed',
}

/**
 * Keeps one connection open, and replaces it without a break: before it is too old, when the
 * exchange announces a shutdown, and when a stream stalls. `LIFE_CYCLE` decides; this class owns
 * the connections and timers.
 */
export class ConnectionSlot implements ConnectionListener {
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
  lost = 0

  constructor(options: ConnectionSlotOptions, log: Logger) {
    this.plan = options.plan
    this.#options = options
    this.#log = log
    this.#current = this.#create(options.nextId(), 1)
    this.#stalls = new StallDetector(options.rates)
  }

  /** The current connection and, during a rollover, its successor. */
  get connections(): readonly WsConsumer[] {
    return this.#successor === null ? [this.#current] : [this.#current, this.#successor]
  }

  get isOpen(): boolean {
    return this.connections.some(({ open }) => open !== null)
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

  /** Returns how long only pings have arrived; null while paused, or if its rates explain it. */
  silentMs(nowMs: number): number | null {
    const open = this.connections.flatMap((connection) => connection.open ?? [])
    if (open.length === 0 || open.some(({ pauses }) => pauses.isPaused)) return null
    const silentMs = nowMs - Math.max(...open.map((one) => one.lastDataAtMs ?? one.openedAtMs))
    return silentMs > Math.max(SILENT_MS, this.#patienceMs) ? silentMs : null
  }

  /** Opens a second connection, which takes over once it delivers. */
  rollOver(reason: string): void {
    this.#on('replace', reason)
  }

  /** Checks for streams that have gone quiet. Call it every few seconds. */
  watch(): void {
    // A paused socket delivers nothing, which is no fault of the exchange. A new one needs time.
    const { id, open } = this.#current
    const isJudged = this.#state !== 'overlap-delivering' && open?.pauses.isPaused === false
    if (!isJudged || open.completeAtMs === null) return
    const remedy = this.#stalls.check(this.plan.streams, this.#nowMs(), id, open.completeAtMs)
    if (remedy === null) return
    const { streams, reason } = remedy
    this.#options.onQuiet(streams)
    if (reason === null) this.#current.resubscribe(streams)
    else this.rollOver(reason)
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
        if (this.#current.open?.isDelivering) this.#retryMs = RETRY_MS
        return
      case 'count rollover':
        this.rollovers++
    }
  }

  #enter(state: State, reason: string): void {
    switch (state) {
      case 'connecting':
        this.#forgetAge()
        if (this.#current.open !== null) this.#on('current opened', reason)
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
        this.#after(this.#retryMs, () => this.rollOver(reason))
        this.#retryMs = Math.min(RETRY_MAX_MS, this.#retryMs * 2)
        return
      case 'stopped':
        this.#forgetAge()
    }
  }

  /** Abandons a successor that does not open, or is silent while events are due or the old one delivers. */
  #limitSilence(): void {
    const sinceMs = this.#nowMs()
    const look = () => {
      const openedAtMs = this.#successor?.open?.openedAtMs
      const oldDataAtMs = this.#current.open?.lastDataAtMs ?? Number.NEGATIVE_INFINITY
      const isDue = oldDataAtMs > (openedAtMs ?? sinceMs) || this.#nowMs() - sinceMs >= this.#patienceMs
      if (openedAtMs === undefined) this.#on('successor failed', 'it has not opened')
      else if (isDue) this.#on('successor failed', 'it has delivered nothing')
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
    this.#dueAtMs = (this.#current.open?.openedAtMs ?? nowMs) + ageMs
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
    return new WsConsumer({ ...this.#options, id, attempt, plan: this.plan }, this, this.#log)
  }

  /** Ignores a connection that was replaced or abandoned. */
  onReport(connection: WsConsumer, report: Report | 'closed', reason = ''): void {
    const isCurrent = connection === this.#current
    if (isCurrent && report === 'delivering') this.#retryMs = RETRY_MS
    const event = isCurrent ? OF_CURRENT[report] : OF_SUCCESSOR[report]
    if (event !== null && this.connections.includes(connection)) this.#on(event, reason)
  }

  onClosed(connection: WsConsumer, { wasOpen, hasDelivered, reconnectsAtOnce }: ConnectionEnd): void {
    if (connection === this.#current) {
      if (wasOpen && this.#state !== 'stopped') this.lost++
      if (hasDelivered) this.#failures = 0
      this.#reconnectsAtOnce = reconnectsAtOnce
    }
    this.onReport(connection, 'closed', 'the connection has closed')
  }

  get #patienceMs(): number {
    return this.#options.rates.connectionPatienceMs(this.plan.streams)
  }

  #nowMs(): number {
    return this.#options.ports.clock.monotonicMs()
  }
}
