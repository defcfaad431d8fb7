import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConnectionStatus } from '../foundation/telemetry/status.ts'
import { StallDetector } from './connection/stall-detector.ts'
import type { StreamRates } from './connection/stream-rates.ts'
import type { Ports } from './ports.ts'
import type { WsConsumer } from './ws-consumer.ts'

export interface ConnectionSlotOptions {
  readonly rates: StreamRates
  readonly plan: ConnectionPlan
  readonly ports: Pick<Ports, 'clock' | 'random'>
  /** A connection is replaced before it gets so old: the exchange cuts it after 24 hours. */
  readonly maxAgeMs: number
  /** Streams of the slot's connection have gone quiet. */
  readonly onQuiet: (streams: readonly string[]) => void
  /** Makes a connection that tells this slot of its opening and closing. */
  readonly connect: (slot: ConnectionSlot) => WsConsumer
}

/** Both connections deliver for so long; longer than an event is held for the older one. */
const OVERLAP_MS = 6000

/** A successor that has delivered nothing by then is given up, where something was to be expected. */
const GIVE_UP_MS = 60_000

/** Before a successor is tried anew; doubles with each that was given up in a row. */
const RETRY_MS = 5000
const RETRY_MAX_MS = 3_600_000

/** A connection that has delivered nothing for so long is reported, or later where its streams are slower. */
const SILENT_MS = 60_000

/** Connections that opened together are not replaced together. */
const AGE_SPREAD = 0.05

/**
 * A place for one connection, which is replaced make-before-break: before it is too old, and when the exchange
 * announces its end. The old one goes once the new one has delivered alongside for a while. Specification: R1 to R7.
 */
export class ConnectionSlot {
  /** What its connections deliver. */
  plan: ConnectionPlan
  readonly #options: ConnectionSlotOptions
  readonly #log: Logger
  #current: WsConsumer
  #successor: WsConsumer | null = null
  /** When the current connection is to be replaced, on the monotonic clock. */
  #dueAtMs: number | null = null
  #cancelAge: (() => void) | null = null
  #cancelOverlap: (() => void) | null = null
  #cancelGiveUp: (() => void) | null = null
  #cancelRetry: (() => void) | null = null
  #retryMs = RETRY_MS
  #leaving: Promise<void> = Promise.resolve()
  readonly #stalls: StallDetector
  #stopped = false
  /** Connections that were replaced without a break. */
  rollovers = 0
  /** Times that its connection ended without having been told to, whether another took over or not. */
  lost = 0

  constructor(options: ConnectionSlotOptions, log: Logger) {
    this.plan = options.plan
    this.#options = options
    this.#log = log
    this.#current = options.connect(this)
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

  /** The current connection and, during a rollover, the one that follows it. */
  get connections(): readonly WsConsumer[] {
    return this.#successor === null ? [this.#current] : [this.#current, this.#successor]
  }

  /** True while any of them delivers. */
  get isOpen(): boolean {
    return this.connections.some((connection) => connection.isOpen)
  }

  start(): void {
    this.#current.start()
  }

  /** Streams join or leave: on open connections, and in those that follow. */
  follow(plan: ConnectionPlan): void {
    this.plan = plan
    for (const connection of this.connections) connection.follow(plan)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    this.#cancelTimers()
    await Promise.all([...this.connections.map((connection) => connection.stop()), this.#leaving])
  }

  status(): ConnectionStatus[] {
    const dueInMs = this.#dueAtMs === null ? null : this.#dueAtMs - this.#options.ports.clock.monotonicMs()
    return this.connections.map((connection) => ({
      ...connection.status(),
      rolloverInMs:
        connection === this.#current && dueInMs !== null ? Math.max(0, Math.round(dueInMs)) : null,
    }))
  }

  /**
   * How long nothing but pings has come, in milliseconds, where that is longer than its streams make likely; null
   * where it is not, and while it is paused.
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
    if (this.#stopped || this.#successor !== null) return
    this.#log.info({ reason }, 'Replacing a connection')
    this.#cancelRetry?.()
    this.#successor = this.#options.connect(this)
    this.#successor.start()
  }

  /** To be called every few seconds: looks for streams that have gone quiet. */
  watch(): void {
    // What a paused socket does not deliver is not the exchange's fault, and one that has just opened needs time.
    const { id, completeAtMs, isPaused } = this.#current
    if (completeAtMs === null || isPaused || this.#successor?.isDelivering === true) return
    this.#stalls.check(this.plan.streams, this.#options.ports.clock.monotonicMs(), id, completeAtMs)
  }

  onConnected(connection: WsConsumer): void {
    if (connection === this.#successor) this.#giveUpLater(connection, GIVE_UP_MS)
    else if (connection === this.#current) this.#scheduleRollover()
  }

  /** All its streams are subscribed, and it has delivered since. */
  onDelivering(connection: WsConsumer): void {
    if (connection !== this.#successor) return
    this.#cancelGiveUp?.()
    this.#cancelOverlap = this.#options.ports.clock.schedule(OVERLAP_MS, () => this.#handOver())
  }

  /** The exchange does not give a connection its streams. */
  onRefused(connection: WsConsumer, reason: string): void {
    if (connection === this.#successor) this.#giveUp(reason)
    else if (connection === this.#current && this.#successor === null) this.#retryLater(reason)
  }

  /** The exchange announces that it ends a connection. */
  onShutdown(connection: WsConsumer): void {
    const reason = 'the exchange shuts this server down'
    if (connection === this.#successor) this.#giveUp(reason, 0)
    else if (connection === this.#current) this.rollOver(reason)
  }

  onDisconnected(connection: WsConsumer): void {
    if (connection === this.#successor) {
      this.#cancelOverlap?.()
      this.#cancelGiveUp?.()
      return
    }
    // One that has been replaced is leaving.
    if (connection !== this.#current) return
    if (!this.#stopped) this.lost++
    this.#cancelAge?.()
    // The old one has gone by itself: the new one, open or about to be, takes its place.
    if (this.#successor !== null) this.#handOver()
  }

  get #patienceMs(): number {
    return this.#options.rates.connectionPatienceMs(this.plan.streams)
  }

  #giveUpLater(successor: WsConsumer, afterMs: number): void {
    const { clock } = this.#options.ports
    const sinceMs = clock.monotonicMs()
    this.#cancelGiveUp = clock.schedule(afterMs, () => {
      const oldDelivers =
        (this.#current.lastDataAtMs ?? Number.NEGATIVE_INFINITY) > (successor.openedAtMs ?? sinceMs)
      // Where all symbols trade rarely, a minute without a trade means nothing.
      if (oldDelivers || clock.monotonicMs() - sinceMs >= this.#patienceMs) {
        this.#giveUp('it has delivered nothing')
      } else this.#giveUpLater(successor, GIVE_UP_MS)
    })
  }

  /** Drops the successor while the old one goes on. */
  #giveUp(reason: string, retryMs = this.#retryMs): void {
    const successor = this.#successor
    if (successor === null || this.#stopped) return
    this.#log.warn({ connection: successor.id }, `A new connection is given up: ${reason}`)
    this.#cancelOverlap?.()
    this.#cancelGiveUp?.()
    this.#successor = null
    this.#leave(successor)
    this.#retryLater(reason, retryMs)
  }

  #retryLater(reason: string, retryMs = this.#retryMs): void {
    this.#cancelRetry?.()
    this.#cancelRetry = this.#options.ports.clock.schedule(retryMs, () => this.rollOver(reason))
    this.#retryMs = Math.min(RETRY_MAX_MS, this.#retryMs * 2)
  }

  #handOver(): void {
    const old = this.#current
    if (this.#successor === null || this.#stopped) return
    this.#cancelOverlap?.()
    this.#cancelGiveUp?.()
    this.#current = this.#successor
    this.#successor = null
    if (this.#current.isDelivering) this.#retryMs = RETRY_MS
    this.rollovers++
    this.#scheduleRollover()
    this.#leave(old)
  }

  #leave(connection: WsConsumer): void {
    this.#leaving = Promise.all([this.#leaving, connection.stop()]).then(() => {})
  }

  #scheduleRollover(): void {
    const { clock, random } = this.#options.ports
    this.#cancelAge?.()
    const nowMs = clock.monotonicMs()
    const ageMs = this.#options.maxAgeMs * (1 - AGE_SPREAD * random())
    this.#dueAtMs = (this.#current.openedAtMs ?? nowMs) + ageMs
    this.#cancelAge = clock.schedule(Math.max(0, this.#dueAtMs - nowMs), () =>
      this.rollOver('it is about to be too old'),
    )
  }

  #cancelTimers(): void {
    for (const cancel of [this.#cancelAge, this.#cancelOverlap, this.#cancelGiveUp, this.#cancelRetry])
      cancel?.()
  }
}
