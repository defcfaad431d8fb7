import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import type { TimeUnit } from '../../../foundation/market/time-unit.ts'
import { AttemptLimit } from '../../../foundation/runtime/backoff.ts'
import type { Clock } from '../../../foundation/runtime/clock.ts'
import {
  errorAnswer,
  MAX_STREAMS,
  parseRequest,
  resultAnswer,
  type StreamRequest,
} from './stream-protocol.ts'
import { Outbox } from './text-frame.ts'

/** The exchange's limits for a connection. Tests shorten the times. */
export interface StreamLimits {
  readonly pingIntervalMs: number
  /** A connection with a ping unanswered for this long is terminated. */
  readonly pongTimeoutMs: number
  readonly connectionMaxAgeMs: number
  /** How long before the end of a connection `serverShutdown` is sent; 0 means never. */
  readonly serverShutdownNoticeMs: number
  /**
   * Limit of pings, pongs and JSON together. One more in a second closes the connection with 1008.
   */
  readonly incomingPerSecond: number
  /** A reader with a larger backlog is disconnected; `Infinity` if the sender waits instead. */
  readonly bufferedMaxBytes: number
}

export const DEFAULT_LIMITS: StreamLimits = {
  pingIntervalMs: 20_000,
  pongTimeoutMs: 60_000,
  connectionMaxAgeMs: 24 * 3_600_000,
  serverShutdownNoticeMs: 0,
  incomingPerSecond: 5,
  bufferedMaxBytes: 16 * 1_024 * 1_024,
}

/** The server that keeps all subscriptions, informed by each connection. */
export interface ConnectionOwner {
  subscribed(connection: StreamConnection, stream: string): void
  unsubscribed(connection: StreamConnection, stream: string): void
  ended(connection: StreamConnection): void
  /** Whether a ping that is due may be sent. */
  mayPing(connection: StreamConnection): boolean
}

/** An open connection, for users and tests. */
export interface ConnectionReport {
  readonly id: number
  readonly remotePort: number | null
  readonly openForMs: number
  readonly streams: number
  readonly bufferedBytes: number
}

/** One client's WebSocket: its streams, the answers to its requests, and its limits. */
export class StreamConnection {
  readonly id: number
  readonly socket: Socket
  /** The unit of the times in its frames. */
  readonly timeUnit: TimeUnit
  /** Whether frames have the envelope with the name of their stream. */
  isCombined: boolean
  readonly streams = new Set<string>()
  readonly #webSocket: WebSocket
  readonly #owner: ConnectionOwner
  readonly #limits: StreamLimits
  readonly #clock: Clock
  readonly #incoming: AttemptLimit
  readonly #outbox = new Outbox()
  readonly #cancels = new Set<() => void>()
  readonly #openedAtMs: number
  #unansweredSinceMs: number | undefined
  #readingFrozen = 0

  constructor(options: {
    id: number
    webSocket: WebSocket
    socket: Socket
    timeUnit: TimeUnit
    isCombined: boolean
    owner: ConnectionOwner
    limits: StreamLimits
    clock: Clock
  }) {
    this.id = options.id
    this.socket = options.socket
    this.timeUnit = options.timeUnit
    this.isCombined = options.isCombined
    this.#webSocket = options.webSocket
    this.#owner = options.owner
    this.#limits = options.limits
    this.#clock = options.clock
    this.#openedAtMs = options.clock.monotonicMs()
    this.#incoming = new AttemptLimit(options.limits.incomingPerSecond, 1_000)
    const webSocket = options.webSocket
    webSocket.on('message', (data) => this.#onMessage(data.toString()))
    webSocket.on('ping', () => this.#mayCome())
    webSocket.on('pong', () => {
      this.#unansweredSinceMs = undefined
      this.#mayCome()
    })
    // A client that violates the protocol or the connection. 'close' always follows.
    webSocket.on('error', () => webSocket.terminate())
    webSocket.on('close', () => this.#onClose())
    this.#schedulePing()
    this.#scheduleEnd()
  }

  get bufferedBytes(): number {
    return this.#webSocket.bufferedAmount
  }

  get isOpen(): boolean {
    return this.#webSocket.readyState === this.#webSocket.OPEN
  }

  /**
   * Adds a frame of market data for the next `flush`. Returns false once the connection is closing.
   */
  enqueue(frame: Buffer): boolean {
    if (!this.isOpen) return false
    this.#outbox.add(frame)
    return true
  }

  /**
   * Writes the added frames to the socket, bypassing `ws`. That is safe: without compression `ws`
   * writes each of its frames at once and as a whole.
   */
  flush(): void {
    const bytes = this.#outbox.take()
    if (bytes !== undefined && this.isOpen) this.socket.write(bytes)
    if (this.bufferedBytes > this.#limits.bufferedMaxBytes) this.#webSocket.terminate()
  }

  close(code: number, reason: string): void {
    this.#webSocket.close(code, reason)
  }

  terminate(): void {
    this.#webSocket.terminate()
  }

  /** Closes the connection with a TCP reset. */
  reset(): void {
    this.socket.resetAndDestroy()
  }

  /** Closes the connection without a closing handshake. */
  hangUp(): void {
    this.socket.destroy()
  }

  /**
   * Stops reading from the socket, writing to it, or both, until the returned function is called.
   * Data written meanwhile waits in memory and counts as the reader's backlog.
   */
  freeze({ reading, writing }: { reading: boolean; writing: boolean }): () => void {
    if (writing) this.socket.cork()
    if (reading && ++this.#readingFrozen === 1) this.#webSocket.pause()
    return () => {
      if (writing) this.socket.uncork()
      if (reading && --this.#readingFrozen === 0) this.#webSocket.resume()
    }
  }

  /**
   * Tells the client to reconnect, as the exchange does before it closes a connection for
   * maintenance.
   */
  announceShutdown(): void {
    const us = this.#clock.wallMicros()
    const E = this.timeUnit === 'microsecond' ? us : Math.floor(us / 1_000)
    const data = { e: 'serverShutdown', E }
    if (this.isOpen)
      this.#webSocket.send(JSON.stringify(this.isCombined ? { stream: '!serverShutdown', data } : data))
  }

  report(): ConnectionReport {
    return {
      id: this.id,
      remotePort: this.socket.remotePort ?? null,
      openForMs: Math.round(this.#clock.monotonicMs() - this.#openedAtMs),
      streams: this.streams.size,
      bufferedBytes: this.bufferedBytes,
    }
  }

  /** Runs an action once after a delay, unless the connection has ended before. */
  after(delayMs: number, run: () => void): void {
    const cancel = this.#clock.schedule(delayMs, () => {
      this.#cancels.delete(cancel)
      run()
    })
    this.#cancels.add(cancel)
  }

  /** Adds the streams of a request: all, or none if there would be too many. */
  subscribe(streams: readonly string[]): boolean {
    if (new Set([...this.streams, ...streams]).size > MAX_STREAMS) return false
    for (const stream of streams) {
      if (this.streams.has(stream)) continue
      this.streams.add(stream)
      this.#owner.subscribed(this, stream)
    }
    return true
  }

  #unsubscribe(streams: Iterable<string>): void {
    for (const stream of streams) {
      if (this.streams.delete(stream)) this.#owner.unsubscribed(this, stream)
    }
  }

  #onMessage(text: string): void {
    if (this.#mayCome()) this.#webSocket.send(this.#answerTo(parseRequest(text)))
  }

  #answerTo(request: StreamRequest): string {
    switch (request.method) {
      case 'SUBSCRIBE': {
        const done = this.subscribe(request.streams)
        const tooMany = errorAnswer(2, 'Invalid request: too many parameters', request.id)
        return done ? resultAnswer(null, request.id) : tooMany
      }
      case 'UNSUBSCRIBE':
        this.#unsubscribe(request.streams)
        return resultAnswer(null, request.id)
      case 'LIST_SUBSCRIPTIONS':
        return resultAnswer([...this.streams], request.id)
      case 'GET_COMBINED':
        return resultAnswer(this.isCombined, request.id)
      case 'SET_COMBINED':
        this.isCombined = request.isCombined
        return resultAnswer(null, request.id)
      case 'REFUSED':
        return request.answer
    }
  }

  /**
   * Counts an incoming message. Above the limit it closes the connection, and no answer follows.
   */
  #mayCome(): boolean {
    if (!this.isOpen) return false
    const { allowed } = this.#incoming.take(this.#clock.monotonicMs())
    if (!allowed) this.#webSocket.close(1008, 'Too many requests')
    return allowed
  }

  #schedulePing(): void {
    this.after(this.#limits.pingIntervalMs, () => {
      const nowMs = this.#clock.monotonicMs()
      if (
        this.#unansweredSinceMs !== undefined &&
        nowMs - this.#unansweredSinceMs >= this.#limits.pongTimeoutMs
      ) {
        this.#webSocket.terminate()
        return
      }
      if (this.isOpen && this.#owner.mayPing(this)) {
        this.#unansweredSinceMs ??= nowMs
        this.#webSocket.ping(String(Math.floor(this.#clock.wallMicros() / 1_000)))
      }
      this.#schedulePing()
    })
  }

  #scheduleEnd(): void {
    const { connectionMaxAgeMs, serverShutdownNoticeMs } = this.#limits
    this.after(connectionMaxAgeMs, () => this.close(1001, 'Connection is 24 hours old'))
    if (serverShutdownNoticeMs === 0) return
    this.after(Math.max(0, connectionMaxAgeMs - serverShutdownNoticeMs), () => this.announceShutdown())
  }

  #onClose(): void {
    for (const cancel of this.#cancels) cancel()
    this.#unsubscribe([...this.streams])
    this.#owner.ended(this)
  }
}
