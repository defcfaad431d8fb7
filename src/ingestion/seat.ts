import type { ConnectionPlan } from '../binance/connection-plan.ts'
import type { Logger } from '../telemetry/log.ts'
import type { ConnectionStatus } from '../telemetry/status.ts'
import type { Outside } from './outside.ts'
import { StallWatch } from './stall-watch.ts'
import type { StreamRates } from './stream-rates.ts'
import type { WsConsumer } from './ws-consumer.ts'

export interface SeatOptions {
  readonly rates: StreamRates
  readonly plan: ConnectionPlan
  readonly outside: Pick<Outside, 'clock' | 'random'>
  /** A connection is replaced before it gets so old: the exchange cuts it after 24 hours. */
  readonly maxAgeMs: number
  /** Streams of the seat's connection have gone quiet. */
  readonly onQuiet: (streams: readonly string[]) => void
  /** Makes a connection that tells this seat of its opening and closing. */
  readonly connect: (seat: Seat) => WsConsumer
}

/** Both connections deliver for so long; longer than an event is held for the older one. */
const OVERLAP_MS = 6000

/** Connections that opened together are not replaced together. */
const AGE_SPREAD = 0.05

/**
 * A place for one connection, which is replaced make-before-break: before it is too old, and when the exchange
 * announces its end. The old one goes once the new one has delivered alongside for a while. Specification: R1 to R4.
 */
export class Seat {
  readonly plan: ConnectionPlan
  readonly #options: SeatOptions
  readonly #log: Logger
  #current: WsConsumer
  #successor: WsConsumer | null = null
  #cancelAge: (() => void) | null = null
  #cancelOverlap: (() => void) | null = null
  #leaving: Promise<void> = Promise.resolve()
  readonly #stalls: StallWatch
  #stopped = false
  /** Connections that were replaced without a break. */
  rollovers = 0

  constructor(options: SeatOptions, log: Logger) {
    this.plan = options.plan
    this.#options = options
    this.#log = log
    this.#current = options.connect(this)
    this.#stalls = new StallWatch(options.plan.streams, options.rates, {
      resubscribe: (streams) => {
        options.onQuiet(streams)
        this.#current
          .resubscribe(streams)
          .catch((error: unknown) => this.#log.warn({ err: error }, 'Subscribing anew failed'))
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

  async stop(): Promise<void> {
    this.#stopped = true
    this.#cancelAge?.()
    this.#cancelOverlap?.()
    await Promise.all([...this.connections.map((connection) => connection.stop()), this.#leaving])
  }

  status(): ConnectionStatus[] {
    return this.connections.map((connection) => connection.status())
  }

  /** Opens a second connection, which takes over once it delivers. */
  rollOver(reason: string): void {
    if (this.#stopped || this.#successor !== null) return
    this.#log.info({ reason }, 'Replacing a connection')
    this.#successor = this.#options.connect(this)
    this.#successor.start()
  }

  /** To be called every few seconds: looks for streams that have gone quiet. */
  watch(): void {
    // What a paused socket does not deliver is not the exchange's fault, and one that has just opened needs time.
    const { id, openedAtMs, isPaused } = this.#current
    if (openedAtMs !== null && !isPaused && this.#successor === null) {
      this.#stalls.check(this.#options.outside.clock.monotonicMs(), id, openedAtMs)
    }
  }

  onConnected(connection: WsConsumer): void {
    if (connection === this.#successor) {
      this.#cancelOverlap = this.#options.outside.clock.schedule(OVERLAP_MS, () => this.#handOver())
      return
    }
    this.#scheduleRollover()
  }

  onDisconnected(connection: WsConsumer): void {
    if (connection === this.#successor) {
      this.#cancelOverlap?.()
      return
    }
    // One that has been replaced is leaving.
    if (connection !== this.#current) return
    this.#cancelAge?.()
    // The old one has gone by itself: the new one, open or about to be, takes its place.
    if (this.#successor !== null) this.#handOver()
  }

  #handOver(): void {
    const old = this.#current
    if (this.#successor === null || this.#stopped) return
    this.#cancelOverlap?.()
    this.#current = this.#successor
    this.#successor = null
    this.rollovers++
    this.#scheduleRollover()
    this.#leaving = Promise.all([this.#leaving, old.stop()]).then(() => {})
  }

  #scheduleRollover(): void {
    this.#cancelAge?.()
    const ageMs = this.#options.maxAgeMs * (1 - AGE_SPREAD * this.#options.outside.random())
    this.#cancelAge = this.#options.outside.clock.schedule(ageMs, () =>
      this.rollOver('it is about to be too old'),
    )
  }
}
