import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import type { TimeUnit } from '../../../foundation/market/time-unit.ts'
import { AttemptLimit } from '../../../foundation/runtime/backoff.ts'
import { type Clock, wallMs } from '../../../foundation/runtime/clock.ts'
import { answerTo, MAX_STREAMS } from './stream-protocol.ts'
import { Outbox } from './text-frame.ts'

/** The exchange's limits for a connection. Tests shorten the times. */
export interface StreamLimits {
  readonly pingIntervalMs: number
  /** A connection with a ping unanswered for this long is terminated. */
  readonly pongTimeoutMs: number
  readonly connectionMaxAgeMs: number
  /** How long before the end of a connection `serverShutdown` is sent; 0 means never. */
  readonly serverShutdownNoticeMs: number
  /** Limit of pings, pongs and JSON together. One more in a second closes with 1008. */
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
interface ConnectionOwner {
  readonly limits: StreamLimits
  readonly clock: Clock
  subscribed(connection: StreamConnection, stream: string): void
  unsubscribed(connection: StreamConnection, stream: string): void
  ended(connection: StreamConnection): void
  mayPing(connection: StreamConnection): boolean
}

/** An open connection, for users and tests. */
export type ConnectionReport = ReturnType<StreamConnection['report']>

/** One client's WebSocket: its streams, the answers to its requests, and its limits. */
export class StreamConnection {
  readonly id: number
  readonly socket: Socket
  readonly timeUnit: TimeUnit
  /** Whether frames have the envelope with the name of their stream. */
  isCombined: boolean
  readonly streams = new Set<string>()
  readonly #webSocket: WebSocket
  readonly #owner: ConnectionOwner
  readonly #incoming: AttemptLimit
  readonly #outbox = new Outbox()
  readonly #cancels = new Set<() => void>()
  readonly #openedAtMs: number
  #unansweredSinceMs: number | undefined
  #readingFrozen = 0

  constructor(
    owner: ConnectionOwner,
    options: { id: number; webSocket: WebSocket; socket: Socket; timeUnit: TimeUnit; isCombined: boolean },
  ) {
    const { webSocket } = options
    this.id = options.id
    this.socket = options.socket
    this.timeUnit = options.timeUnit
    this.isCombined = options.isCombined
    this.#webSocket = webSocket
    this.#owner = owner
    this.#openedAtMs = owner.clock.monotonicMs()
    this.#incoming = new AttemptLimit(owner.limits.incomingPerSecond, 1_000)
    webSocket.on('message', (data) => {
      if (this.#mayCome()) webSocket.send(answerTo(data.toString(), this))
    })
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

  /** Adds a frame of market data for the next `flush`. False once the connection is closing. */
  enqueue(frame: Buffer): boolean {
    if (!this.isOpen) return false
    this.#outbox.add(frame)
    return true
  }

  /** Writes the added frames. Bypassing `ws` is safe: it writes each of its frames as a whole. */
  flush(): void {
    const bytes = this.#outbox.take()
    if (bytes !== undefined && this.isOpen) this.socket.write(bytes)
    if (this.bufferedBytes > this.#owner.limits.bufferedMaxBytes) this.#webSocket.terminate()
  }

  close(code: number, reason: string): void {
    this.#webSocket.close(code, reason)
  }

  terminate(): void {
    this.#webSocket.terminate()
  }

  /** Stops reading, writing or both until the result is called. Data waits as the reader's backlog. */
  freeze({ reading, writing }: { reading: boolean; writing: boolean }): () => void {
    if (writing) this.socket.cork()
    if (reading && ++this.#readingFrozen === 1) this.#webSocket.pause()
    return () => {
      if (writing) this.socket.uncork()
      if (reading && --this.#readingFrozen === 0) this.#webSocket.resume()
    }
  }

  /** Tells the client to reconnect, as the exchange does before maintenance. */
  announceShutdown(): void {
    const us = this.#owner.clock.wallMicros()
    const E = this.timeUnit === 'microsecond' ? us : Math.floor(us / 1_000)
    const data = { e: 'serverShutdown', E }
    if (this.isOpen)
      this.#webSocket.send(JSON.stringify(this.isCombined ? { stream: '!serverShutdown', data } : data))
  }

  report() {
    return {
      id: this.id,
      remotePort: this.socket.remotePort ?? null,
      openForMs: Math.round(this.#owner.clock.monotonicMs() - this.#openedAtMs),
      streams: this.streams.size,
      bufferedBytes: this.bufferedBytes,
    }
  }

  /** Runs an action once after a delay, unless the connection has ended before. */
  after(delayMs: number, run: () => void): void {
    const cancel = this.#owner.clock.schedule(delayMs, () => {
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

  unsubscribe(streams: Iterable<string>): void {
    for (const stream of streams) {
      if (this.streams.delete(stream)) this.#owner.unsubscribed(this, stream)
    }
  }

  /** Counts an incoming message. Above the limit it closes the connection, without an answer. */
  #mayCome(): boolean {
    if (!this.isOpen) return false
    const isAllowed = this.#incoming.take(this.#owner.clock.monotonicMs()) === 0
    if (!isAllowed) this.#webSocket.close(1008, 'Too many requests')
    return isAllowed
  }

  #schedulePing(): void {
    const { limits, clock } = this.#owner
    this.after(limits.pingIntervalMs, () => {
      const nowMs = clock.monotonicMs()
      if (nowMs - (this.#unansweredSinceMs ?? nowMs) >= limits.pongTimeoutMs) {
        this.terminate()
        return
      }
      if (this.isOpen && this.#owner.mayPing(this)) {
        this.#unansweredSinceMs ??= nowMs
        this.#webSocket.ping(String(wallMs(clock)))
      }
      this.#schedulePing()
    })
  }

  #scheduleEnd(): void {
    const { connectionMaxAgeMs, serverShutdownNoticeMs } = this.#owner.limits
    this.after(connectionMaxAgeMs, () => this.close(1001, 'Connection is 24 hours old'))
    if (serverShutdownNoticeMs === 0) return
    this.after(Math.max(0, connectionMaxAgeMs - serverShutdownNoticeMs), () => this.announceShutdown())
  }

  #onClose(): void {
    for (const cancel of this.#cancels) cancel()
    this.unsubscribe([...this.streams])
    this.#owner.ended(this)
  }
}
