import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { StreamSocket } from '../foundation/binance/stream-socket.ts'
import { delayFor } from '../foundation/runtime/backoff.ts'
import { sleepOn } from '../foundation/runtime/clock.ts'
import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConnectionStatus } from '../foundation/telemetry/status.ts'
import { PauseBudget } from './connection/pause-budget.ts'
import { Subscriptions } from './connection/subscriptions.ts'
import type { WsConsumerEvents, WsConsumerOptions } from './ws-consumer-options.ts'

/** The exchange sends a ping every 20 s: three missed ones, and the connection is dead whatever TCP thinks. */
const SILENCE_LIMIT_MS = 60_000
const WATCH_EVERY_MS = 1000

/** Frames held in kernel buffers for longer than this would be stamped too late; many short pauses count like a long one. */
const PAUSE_LIMIT_MS = 5000

/** One socket's life; a late callback of an earlier socket finds that it is no longer the current one. */
interface Session {
  readonly socket: StreamSocket
  readonly openedAtMs: number
  readonly subscriptions: Subscriptions
  readonly pauses: PauseBudget
  /** What it delivers, or has asked for. */
  plan: ConnectionPlan
  lastByteAtMs: number
  /** Market data; null before the first. */
  lastDataAtMs: number | null
  /** When its last own stream was confirmed; null before. */
  completeAtMs: number | null
  delivering: boolean
  /** It has been given up: what still comes out of its buffers is too late to be stamped. */
  dropped: boolean
  cancelWatch: (() => void) | null
}

/**
 * One connection to the combined stream, kept up for ever: reconnects with backoff, which a connection that has
 * delivered market data resets; pauses when told to; closes itself when the exchange has gone silent or a pause has
 * lasted too long. Pongs are answered by the `ws` library.
 */
export class WsConsumer {
  readonly #options: WsConsumerOptions
  readonly #events: WsConsumerEvents
  readonly #log: Logger
  readonly #stopping = new AbortController()
  #plan: ConnectionPlan
  #session: Session | null = null
  /** The socket that is not open yet. */
  #opening: StreamSocket | null = null
  #phase: 'waiting' | 'connecting' = 'waiting'
  #attempts = 0
  #failures = 0
  #paused = false
  #reconnectAtOnce = false
  #running: Promise<void> | null = null

  constructor(options: WsConsumerOptions, events: WsConsumerEvents, log: Logger) {
    this.#options = options
    this.#plan = options.plan
    this.#events = events
    this.#log = log
  }

  get id(): number {
    return this.#options.id
  }

  /** On the monotonic clock; null while it is not open. */
  get openedAtMs(): number | null {
    return this.#session?.openedAtMs ?? null
  }

  /** Since when all its streams are subscribed, on the monotonic clock; null while they are not. */
  get completeAtMs(): number | null {
    return this.#session?.completeAtMs ?? null
  }

  /** When it last delivered market data since it opened, on the monotonic clock; null when it has not. */
  get lastDataAtMs(): number | null {
    return this.#session?.lastDataAtMs ?? null
  }

  /** All its streams are subscribed, and it has delivered market data since. */
  get isDelivering(): boolean {
    return this.#session?.delivering ?? false
  }

  get isOpen(): boolean {
    return this.#session !== null
  }

  start(): void {
    this.#running ??= this.#run()
  }

  pause(): void {
    this.#paused = true
    const session = this.#session
    if (session === null || session.pauses.isPaused) return
    session.pauses.set(true, this.#nowMs())
    session.socket.pause()
  }

  resume(): void {
    this.#paused = false
    const session = this.#session
    if (session === null || !session.pauses.isPaused) return
    const nowMs = this.#nowMs()
    session.pauses.set(false, nowMs)
    session.lastByteAtMs = nowMs
    // What waits to be read may be too old to be stamped by now.
    if (session.pauses.ms(nowMs) > PAUSE_LIMIT_MS) this.#dropForPauses()
    else session.socket.resume()
  }

  /** Drops the socket, also one that is about to open, and connects again; without waiting if `atOnce`. */
  reconnect(reason: string, atOnce = false): void {
    this.#opening?.terminate()
    if (this.#session === null || this.#session.dropped) return
    this.#log.warn({ connection: this.#options.id }, `Reconnecting: ${reason}`)
    this.#reconnectAtOnce = atOnce
    this.#session.dropped = true
    this.#session.socket.terminate()
  }

  get isPaused(): boolean {
    return this.#session?.pauses.isPaused ?? false
  }

  /** Renews the subscription of single streams on the open connection. */
  resubscribe(streams: readonly string[]): void {
    if (this.#session === null) return
    this.#log.warn(
      { connection: this.#options.id, streams },
      'Subscribing anew to streams that have gone quiet',
    )
    this.#session.subscriptions.renew(streams)
  }

  /** Changes what it delivers: on an open connection by requests, later in its URL. */
  follow(plan: ConnectionPlan): void {
    this.#plan = plan
    if (this.#session !== null && this.#session.plan !== plan) this.#changeStreams(this.#session, plan)
  }

  #changeStreams(session: Session, plan: ConnectionPlan): void {
    const [before, after] = [new Set(session.plan.streams), new Set(plan.streams)]
    const left = session.plan.streams.filter((stream) => !after.has(stream))
    const joining = plan.streams.filter((stream) => !before.has(stream))
    session.plan = plan
    this.#events.onLeft(left)
    session.subscriptions.leave(left)
    this.#events.onJoining(joining)
    session.subscriptions.join(joining)
  }

  /** @param text the exchange's answer to a request, or its error */
  onAnswer(text: string): void {
    this.#session?.subscriptions.onAnswer(text)
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#session?.socket.close()
    await this.#running
  }

  status(): Omit<ConnectionStatus, 'rolloverInMs'> {
    const session = this.#session
    const lastDataAtMs = session?.lastDataAtMs ?? null
    const open = this.isPaused ? 'paused' : lastDataAtMs === null ? 'open' : 'streaming'
    return {
      id: this.#options.id,
      state: session === null ? this.#phase : open,
      streams: this.#plan.streams.length,
      ageMs: session === null ? null : Math.round(this.#nowMs() - session.openedAtMs),
      lastDataAgeMs: lastDataAtMs === null ? null : Math.round(this.#nowMs() - lastDataAtMs),
      attempts: this.#attempts,
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    const { gate } = this.#options
    while (!signal.aborted) {
      try {
        await this.#options.whenRoom(signal)
        await gate.wait('handshakes', signal)
        if (signal.aborted) return
        this.#attempts++
        this.#phase = 'connecting'
        const ended = await this.#connectUntilClosed()
        if (!signal.aborted) {
          this.#log.warn({ connection: this.#options.id }, `Connection closed: ${ended}`)
        }
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof TapelineError) {
          this.#events.onFatal(error)
          return
        }
        const isReported = gate.failed('handshakes', error)
        const text = `Cannot connect: ${describeError(error)}`
        if (!isReported) this.#log.warn({ connection: this.#options.id, err: error }, text)
      }
      this.#phase = 'waiting'
      this.#failures++
      const { clock, random } = this.#options.ports
      const waitMs = this.#reconnectAtOnce ? 0 : delayFor(this.#failures, this.#options.backoff, random())
      this.#reconnectAtOnce = false
      await sleepOn(clock, waitMs, signal).catch(() => {})
    }
  }

  /** Resolves with the reason once a connection that was open has closed; rejects when it never opened. */
  async #connectUntilClosed(): Promise<string> {
    const { signal } = this.#stopping
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    let session: Session | null = null
    const plan = this.#plan
    const socket = this.#options.ports.exchange.openSocket(plan.url, {
      onOpen: (named) => {
        this.#options.gate.served('handshakes')
        try {
          this.#events.onOpen(named)
          session = this.#begin(socket, plan)
        } catch (error) {
          reject(error)
        }
      },
      onFailed: reject,
      onFrame: (frame) => {
        if (session !== null) this.#onFrame(session, frame)
      },
      onPing: () => {
        if (session === null) return
        session.lastByteAtMs = this.#nowMs()
        session.subscriptions.onPong()
      },
      onClose: resolve,
    })
    this.#opening = socket
    const abort = () => {
      if (session === null) socket.terminate()
    }
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await promise
    } finally {
      signal.removeEventListener('abort', abort)
      this.#opening = null
      if (session !== null) this.#end(session)
      socket.terminate()
    }
  }

  #begin(socket: StreamSocket, plan: ConnectionPlan): Session {
    const nowMs = this.#nowMs()
    const { ports } = this.#options
    const session: Session = {
      socket,
      openedAtMs: nowMs,
      subscriptions: new Subscriptions(plan.subscriptions, {
        clock: ports.clock,
        send: (text) => socket.send(text),
        onSubscribed: (streams) => {
          if (session.subscriptions.areComplete) session.completeAtMs ??= this.#nowMs()
          this.#events.onSubscribed(streams)
        },
        onRefused: (reason) => this.#events.onRefused(reason),
      }),
      pauses: new PauseBudget(nowMs),
      plan,
      lastByteAtMs: nowMs,
      lastDataAtMs: null,
      completeAtMs: plan.subscriptions.length === 0 ? nowMs : null,
      delivering: false,
      dropped: false,
      cancelWatch: null,
    }
    this.#session = session
    this.#opening = null
    this.#events.onConnected(plan)
    // Streams may have joined or left while it opened.
    this.follow(this.#plan)
    this.#watchLater(session)
    if (this.#paused) this.pause()
    else socket.resume()
    return session
  }

  #end(session: Session): void {
    this.#session = null
    session.cancelWatch?.()
    session.subscriptions.stop()
    this.#events.onDisconnected(session.plan.streams)
  }

  #onFrame(session: Session, frame: Buffer): void {
    if (session.dropped) return
    const nowMs = this.#nowMs()
    session.lastByteAtMs = nowMs
    if (!this.#events.onFrame(frame)) return
    session.lastDataAtMs = nowMs
    if (session.delivering) return
    this.#failures = 0
    if (session.completeAtMs === null) return
    session.delivering = true
    this.#events.onDelivering()
  }

  #watchLater(session: Session): void {
    session.cancelWatch = this.#options.ports.clock.schedule(WATCH_EVERY_MS, () => {
      this.#watch(session)
      this.#watchLater(session)
    })
  }

  #watch(session: Session): void {
    const nowMs = this.#nowMs()
    session.subscriptions.check(nowMs, !session.pauses.isPaused)
    if (session.pauses.ms(nowMs) > PAUSE_LIMIT_MS) this.#dropForPauses()
    else if (!session.pauses.isPaused && nowMs - session.lastByteAtMs > SILENCE_LIMIT_MS) {
      this.reconnect('the exchange has sent nothing, not even a ping')
    }
  }

  #dropForPauses(): void {
    this.reconnect('it was paused for too long, Kafka is slow')
  }

  #nowMs(): number {
    return this.#options.ports.clock.monotonicMs()
  }
}
