import { type IncomingMessage, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { WebSocketServer } from 'ws'
import { EXCHANGE_IDENTITY_HEADER } from '../../../foundation/binance/stream-socket.ts'
import type { TimeUnit } from '../../../foundation/market/time-unit.ts'
import { AttemptLimit } from '../../../foundation/runtime/backoff.ts'
import type { Clock } from '../../../foundation/runtime/clock.ts'
import { DEFAULT_LIMITS, StreamConnection, type StreamLimits } from './stream-connection.ts'
import { MAX_STREAMS } from './stream-protocol.ts'
import { TextFrameEncoder } from './text-frame.ts'
import { askedTimeUnit, BAD_TIME_UNIT, withMicroseconds } from './time-units.ts'

/** Header with which a replay names the time unit of its capture. */
const TIME_UNIT_HEADER = 'x-tapeline-time-unit'
/** The exchange was observed to reject longer request lines. */
const MAX_URL_LENGTH = 8_000
const CONNECTIONS_PER_IP = 300
const CONNECTIONS_WINDOW_MS = 5 * 60_000

/** Intercepts the frames. Calls `forward`, at once or later, with a text or bytes. */
export type FrameInterceptor = (
  frame: { readonly connectionId: number; readonly stream: string; readonly text: string },
  forward: (content: string | Buffer) => void,
) => void

export type UpgradeFate =
  | 'reset'
  | { readonly status: number; readonly retryAfterSeconds?: number | undefined }

/** Observes and modifies the traffic of a server. Used for faults. */
export interface StreamHooks {
  /** Undefined: frames are not modified. */
  readonly frame: FrameInterceptor | undefined
  /** Undefined: the upgrade is accepted. */
  upgrade(): UpgradeFate | undefined
  opened(connection: StreamConnection): void
  subscribed(connection: StreamConnection, stream: string): void
  mayPing(connection: StreamConnection): boolean
  closed(connection: StreamConnection): void
}

/** Called when a stream gets its first subscriber and when it loses its last. */
export interface SubscriptionListener {
  streamOpened(stream: string): void
  streamClosed(stream: string): void
}

/** The WebSocket side of an exchange: connections, subscriptions, and the sending of frames. */
export class StreamServer {
  /** At most one. Undefined costs nothing. */
  hooks: StreamHooks | undefined
  readonly source: string
  /** The fixed unit of its frames; null: milliseconds, or the unit that a client requests. */
  readonly ownTimeUnit: TimeUnit | null
  readonly limits: StreamLimits
  readonly clock: Clock
  readonly #webSockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: 1_048_576,
  })
  readonly #connections = new Set<StreamConnection>()
  readonly #subscribers = new Map<string, Set<StreamConnection>>()
  readonly #attempts = new Map<string, AttemptLimit>()
  #listener: SubscriptionListener | undefined
  readonly #encoder = new TextFrameEncoder()
  #inBatch = false
  #connectionCount = 0
  #framesSent = 0

  constructor(options: {
    source: string
    ownTimeUnit: TimeUnit | null
    limits: Partial<StreamLimits> | undefined
    clock: Clock
  }) {
    const { source, ownTimeUnit } = options
    this.source = source
    this.ownTimeUnit = ownTimeUnit
    this.limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.clock = options.clock
    this.#webSockets.on('headers', (headers) => {
      headers.push(`${EXCHANGE_IDENTITY_HEADER}: ${source}`)
      if (ownTimeUnit !== null) headers.push(`${TIME_UNIT_HEADER}: ${ownTimeUnit}`)
    })
  }

  get connections(): ReadonlySet<StreamConnection> {
    return this.#connections
  }

  /** Connections are numbered from 1 in the order of opening. */
  get newestConnectionId(): number {
    return this.#connectionCount
  }

  get framesSent(): number {
    return this.#framesSent
  }

  /** Sets the only listener: the feed of these streams. */
  listen(listener: SubscriptionListener): void {
    this.#listener = listener
  }

  subscribers(stream: string): ReadonlySet<StreamConnection> | undefined {
    return this.#subscribers.get(stream)
  }

  /** @param isFor the subscribers that get it; default: all */
  publish(stream: string, text: string, isFor?: (connection: StreamConnection) => boolean): void {
    const subscribers = this.#subscribers.get(stream)
    if (subscribers === undefined) return
    let inMicroseconds: string | undefined
    const inUnit = (timeUnit: TimeUnit) => {
      if (timeUnit === 'millisecond' || this.ownTimeUnit !== null) return text
      inMicroseconds ??= withMicroseconds(text)
      return inMicroseconds
    }
    const textFor = ({ timeUnit, isCombined }: StreamConnection) =>
      isCombined ? inUnit(timeUnit) : withoutEnvelope(stream, inUnit(timeUnit))
    const intercept = this.hooks?.frame
    let encoded: { readonly text: string; readonly frame: Buffer } | undefined
    for (const connection of subscribers) {
      if (isFor?.(connection) === false) continue
      const own = textFor(connection)
      if (intercept !== undefined) {
        intercept({ connectionId: connection.id, stream, text: own }, (content) =>
          this.#send(connection, typeof content === 'string' ? this.#encoder.encode(content) : content),
        )
        continue
      }
      // The encoder reuses its bytes, so only the last frame is kept.
      if (encoded?.text !== own) encoded = { text: own, frame: this.#encoder.encode(own) }
      this.#send(connection, encoded.frame)
    }
  }

  /** Runs `publishMany`, and sends what it publishes with one write per socket. */
  batch(publishMany: () => void): void {
    this.#inBatch = true
    try {
      publishMany()
    } finally {
      this.#inBatch = false
      for (const connection of this.#connections) connection.flush()
    }
  }

  /** Accepts a request to upgrade, or refuses it with an HTTP status. */
  upgrade(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const wanted = requestedStreams(request.url ?? '/')
    if ('refusal' in wanted) {
      refuse(socket, wanted.refusal, { body: wanted.body ?? '' })
      return
    }
    const ip = socket.remoteAddress ?? ''
    const attempts = this.#attempts.get(ip) ?? new AttemptLimit(CONNECTIONS_PER_IP, CONNECTIONS_WINDOW_MS)
    this.#attempts.set(ip, attempts)
    const waitMs = attempts.take(this.clock.monotonicMs())
    if (waitMs > 0) {
      refuse(socket, '429 Too Many Requests', { retryAfterSeconds: Math.ceil(waitMs / 1_000) })
      return
    }
    const fate = this.hooks?.upgrade()
    if (fate === 'reset') {
      socket.resetAndDestroy()
      return
    }
    if (fate !== undefined) {
      const { status, retryAfterSeconds } = fate
      refuse(socket, `${status} ${STATUS_CODES[status] ?? 'Refused'}`, { retryAfterSeconds })
      return
    }
    this.#webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      const connection = new StreamConnection(this, {
        id: ++this.#connectionCount,
        webSocket,
        socket,
        timeUnit: this.ownTimeUnit ?? wanted.timeUnit,
        isCombined: wanted.isCombined,
      })
      this.#connections.add(connection)
      connection.subscribe(wanted.streams)
      this.hooks?.opened(connection)
    })
  }

  /** Asks all clients to close, disconnects the others after `graceMs`, and waits for their end. */
  async close(graceMs: number): Promise<void> {
    const gone = [...this.#connections].map(
      (connection) => new Promise<void>((resolve) => connection.socket.once('close', () => resolve())),
    )
    for (const connection of this.#connections) connection.close(1001, 'Going away')
    const cancel = this.clock.schedule(graceMs, () => this.terminateAll())
    await Promise.all(gone)
    cancel()
    this.#webSockets.close()
  }

  /** Disconnects all clients without a closing handshake. */
  terminateAll(): void {
    for (const connection of this.#connections) connection.terminate()
  }

  subscribed(connection: StreamConnection, stream: string): void {
    this.hooks?.subscribed(connection, stream)
    const subscribers = this.#subscribers.get(stream)
    if (subscribers !== undefined) subscribers.add(connection)
    else {
      this.#subscribers.set(stream, new Set([connection]))
      this.#listener?.streamOpened(stream)
    }
  }

  unsubscribed(connection: StreamConnection, stream: string): void {
    const subscribers = this.#subscribers.get(stream)
    if (!subscribers?.delete(connection) || subscribers.size > 0) return
    this.#subscribers.delete(stream)
    this.#listener?.streamClosed(stream)
  }

  ended(connection: StreamConnection): void {
    this.#connections.delete(connection)
    this.hooks?.closed(connection)
  }

  mayPing(connection: StreamConnection): boolean {
    return this.hooks?.mayPing(connection) ?? true
  }

  #send(connection: StreamConnection, frame: Buffer): void {
    if (connection.enqueue(frame)) this.#framesSent++
    if (!this.#inBatch) connection.flush()
  }
}

/** Paths of streams without the envelope: `/ws`, `/ws/a`, `/ws/a/b`. */
const RAW_PATH = /^\/ws(?:\/|$)/

/** Parses the streams of `/stream?streams=a/b/c` or `/ws/a/b/c`, or gives the refusal. */
function requestedStreams(
  url: string,
): { streams: string[]; isCombined: boolean; timeUnit: TimeUnit } | { refusal: string; body?: string } {
  if (url.length > MAX_URL_LENGTH) return { refusal: '414 URI Too Long' }
  if (!URL.canParse(url, 'ws://exchange')) return { refusal: '400 Bad Request' }
  const { pathname, searchParams } = new URL(url, 'ws://exchange')
  const isCombined = pathname === '/stream'
  if (!isCombined && !RAW_PATH.test(pathname)) return { refusal: '404 Not Found' }
  const names = isCombined ? (searchParams.get('streams') ?? '') : decoded(pathname.replace(RAW_PATH, ''))
  if (names === null) return { refusal: '400 Bad Request' }
  const streams = names.split('/').filter((name) => name !== '')
  const timeUnit = askedTimeUnit(searchParams.get('timeUnit'))
  if (timeUnit === null) return { refusal: '400 Bad Request', body: JSON.stringify(BAD_TIME_UNIT) }
  return new Set(streams).size > MAX_STREAMS
    ? { refusal: '400 Bad Request' }
    : { streams, isCombined, timeUnit }
}

function decoded(path: string): string | null {
  try {
    return decodeURIComponent(path)
  } catch {
    return null
  }
}

/** The data of a frame `{"stream":…,"data":…}`. */
function withoutEnvelope(stream: string, text: string): string {
  return text.slice(`{"stream":${JSON.stringify(stream)},"data":`.length, -1)
}

function refuse(
  socket: Socket,
  status: string,
  { retryAfterSeconds, body = '' }: { retryAfterSeconds?: number | undefined; body?: string },
): void {
  // Ignore errors: the client may have disconnected.
  socket.on('error', () => socket.destroy())
  const retry = retryAfterSeconds === undefined ? '' : `Retry-After: ${retryAfterSeconds}\r\n`
  socket.end(
    `HTTP/1.1 ${status}\r\n${retry}Connection: close\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}
