import { WebSocket } from 'ws'
import type { ConnectionPlan } from '../binance/connection-plan.ts'
import { LIVE_SOURCE, refusedUpgrade, sourceOf } from '../binance/upgrade.ts'
import { describeError, TapelineError } from '../errors.ts'
import type { Logger } from '../telemetry/log.ts'
import type { ConnectionStatus } from '../telemetry/status.ts'
import type { AttemptLimit } from '../timing/attempt-limit.ts'
import { type BackoffPolicy, delayFor, sleep } from '../timing/backoff.ts'
import type { Clock } from '../timing/clock.ts'

export interface WsConsumerEvents {
  /**
   * The socket is open and nothing has been read from it yet; throwing closes it.
   *
   * @param source what the exchange names itself in the upgrade: `binance` unless it is one of our own
   */
  onOpen(source: string): void
  /** Reading begins. */
  onConnected(): void
  /** The connection that was being read has closed. */
  onDisconnected(): void
  /** @returns true when the frame was market data */
  onFrame(frame: Buffer): boolean
  /** The exchange cannot be used, and waiting does not mend it. */
  onFatal(error: unknown): void
}

export interface WsConsumerOptions {
  readonly id: number
  readonly plan: ConnectionPlan
  readonly backoff: BackoffPolicy
  /** Shared by all connections of the process: the exchange counts by IP. */
  readonly attempts: AttemptLimit
  readonly clock: Clock
  /** Waits while there is no room for what would be received. */
  readonly whenRoom: (signal: AbortSignal) => Promise<void>
}

/** Binance closes a connection of larger frames' sender long before; ours are a few hundred bytes. */
const MAX_FRAME_BYTES = 1 << 20
const HANDSHAKE_TIMEOUT_MS = 10_000
const CLOSE_TIMEOUT_MS = 1000

/** The exchange sends a ping every 20 s: three missed ones, and the connection is dead whatever TCP thinks. */
const SILENCE_LIMIT_MS = 60_000
const WATCH_EVERY_MS = 1000

/** Frames held in kernel buffers for longer than this would be stamped too late. */
const PAUSE_LIMIT_MS = 5000

/** The exchange takes 5 messages a second, pings and pongs included. */
const SUBSCRIBE_INTERVAL_MS = 350

/** One socket's life; a late callback of an earlier socket finds that it is no longer the current one. */
interface Session {
  readonly socket: WebSocket
  readonly openedAtMs: number
  lastByteAtMs: number
  pausedAtMs: number | null
  streaming: boolean
  /** It has been given up: what still comes out of its buffers is too late to be stamped. */
  dropped: boolean
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
  #session: Session | null = null
  #phase: 'waiting' | 'connecting' = 'waiting'
  #attempts = 0
  #failures = 0
  #paused = false
  #requestId = 0
  #reconnectAtOnce = false
  #running: Promise<void> | null = null

  constructor(options: WsConsumerOptions, events: WsConsumerEvents, log: Logger) {
    this.#options = options
    this.#events = events
    this.#log = log
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
    if (session === null || session.pausedAtMs !== null) return
    session.pausedAtMs = performance.now()
    session.socket.pause()
  }

  resume(): void {
    this.#paused = false
    const session = this.#session
    if (session === null || session.pausedAtMs === null) return
    session.pausedAtMs = null
    session.lastByteAtMs = performance.now()
    session.socket.resume()
  }

  /** Drops the socket and connects anew, without waiting where the exchange itself asked for it. */
  reconnect(reason: string, atOnce = false): void {
    if (this.#session === null) return
    this.#log.warn({ connection: this.#options.id }, `Reconnecting: ${reason}`)
    this.#reconnectAtOnce = atOnce
    this.#session.dropped = true
    this.#session.socket.terminate()
  }

  get isPaused(): boolean {
    return this.#session?.pausedAtMs != null
  }

  /** Renews the subscription of single streams on the open connection. */
  async resubscribe(streams: readonly string[]): Promise<void> {
    const socket = this.#session?.socket
    if (socket === undefined) return
    this.#log.warn(
      { connection: this.#options.id, streams },
      'Subscribing anew to streams that have gone quiet',
    )
    for (const method of ['UNSUBSCRIBE', 'SUBSCRIBE']) {
      socket.send(JSON.stringify({ method, params: streams, id: ++this.#requestId }))
      await sleep(SUBSCRIBE_INTERVAL_MS, this.#stopping.signal).catch(() => {})
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    const socket = this.#session?.socket
    if (socket !== undefined) {
      socket.resume()
      socket.close(1000)
      setTimeout(() => socket.terminate(), CLOSE_TIMEOUT_MS).unref()
    }
    await this.#running
  }

  status(): ConnectionStatus {
    const session = this.#session
    const open = session?.pausedAtMs != null ? 'paused' : session?.streaming ? 'streaming' : 'open'
    return {
      id: this.#options.id,
      state: session === null ? this.#phase : open,
      streams: this.#options.plan.streams.length,
      ageMs: session === null ? null : Math.round(performance.now() - session.openedAtMs),
      attempts: this.#attempts,
    }
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      try {
        await this.#options.whenRoom(signal)
        await this.#options.attempts.wait(this.#options.clock, signal)
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
        this.#log.warn(
          { connection: this.#options.id, err: error },
          `Cannot connect: ${describeError(error)}`,
        )
      }
      this.#phase = 'waiting'
      this.#failures++
      const wait = this.#reconnectAtOnce ? 0 : delayFor(this.#failures, this.#options.backoff, Math.random())
      this.#reconnectAtOnce = false
      await sleep(wait, signal).catch(() => {})
    }
  }

  /** Resolves with the reason once a connection that was open has closed; rejects when it never opened. */
  async #connectUntilClosed(): Promise<string> {
    const { signal } = this.#stopping
    let source = LIVE_SOURCE
    const socket = new WebSocket(this.#options.plan.url, {
      perMessageDeflate: false,
      maxPayload: MAX_FRAME_BYTES,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    })
    const closed = new Promise<string>((resolve) => {
      socket.once('close', (code, reason) => resolve(`${code} ${reason.toString()}`.trim()))
    })
    const opened = Promise.withResolvers<void>()
    socket.once('open', () => {
      // Nothing may be read before the source is known to be the right one.
      socket.pause()
      opened.resolve()
    })
    socket.on('error', opened.reject)
    socket.once('upgrade', (response) => {
      source = sourceOf(response)
    })
    socket.once('unexpected-response', (request, response) => {
      request.destroy()
      opened.reject(refusedUpgrade(this.#options.plan.url, response.statusCode ?? 0))
    })
    const abort = () => socket.terminate()
    signal.addEventListener('abort', abort, { once: true })
    try {
      await opened.promise
      signal.removeEventListener('abort', abort)
      this.#events.onOpen(source)
      return await this.#read(socket, closed)
    } finally {
      signal.removeEventListener('abort', abort)
      socket.terminate()
    }
  }

  async #read(socket: WebSocket, closed: Promise<string>): Promise<string> {
    const nowMs = performance.now()
    const session: Session = {
      socket,
      openedAtMs: nowMs,
      lastByteAtMs: nowMs,
      pausedAtMs: null,
      streaming: false,
      dropped: false,
    }
    let problem: string | null = null
    socket.on('error', (error) => {
      problem = describeError(error)
    })
    socket.on('ping', () => {
      session.lastByteAtMs = performance.now()
    })
    socket.on('message', (frame: Buffer) => {
      if (session.dropped) return
      session.lastByteAtMs = performance.now()
      if (!this.#events.onFrame(frame) || session.streaming) return
      session.streaming = true
      this.#failures = 0
    })
    this.#session = session
    this.#events.onConnected()
    const watch = setInterval(() => this.#watch(session), WATCH_EVERY_MS)
    const subscribed = new AbortController()
    const subscribing = this.#subscribe(socket, subscribed.signal)
    if (this.#paused) this.pause()
    else socket.resume()
    try {
      const reason = await closed
      return problem ?? reason
    } finally {
      this.#session = null
      this.#events.onDisconnected()
      clearInterval(watch)
      subscribed.abort()
      await subscribing
    }
  }

  /** Streams that had no place in the URL. */
  async #subscribe(socket: WebSocket, signal: AbortSignal): Promise<void> {
    for (const params of this.#options.plan.subscriptions) {
      await sleep(SUBSCRIBE_INTERVAL_MS, signal).catch(() => {})
      if (signal.aborted) return
      socket.send(JSON.stringify({ method: 'SUBSCRIBE', params, id: ++this.#requestId }))
    }
  }

  #watch(session: Session): void {
    const nowMs = performance.now()
    if (session.pausedAtMs !== null) {
      if (nowMs - session.pausedAtMs > PAUSE_LIMIT_MS)
        this.reconnect('it was paused for too long, Kafka is slow')
    } else if (nowMs - session.lastByteAtMs > SILENCE_LIMIT_MS) {
      this.reconnect('the exchange has sent nothing, not even a ping')
    }
  }
}
