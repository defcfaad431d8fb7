import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { SILENCE_LIMIT_MS, type StreamSocket } from '../foundation/binance/stream-socket.ts'
import { sleep } from '../foundation/runtime/backoff.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import { outsideText } from '../foundation/runtime/outside-text.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConnectionStatus } from '../foundation/telemetry/status.ts'
import { PauseBudget } from './connection/pause-budget.ts'
import { Subscriptions } from './connection/subscriptions.ts'
import type { ControlFrame, Core } from './core.ts'
import type { MessageQueue } from './messages/message-queue.ts'
import type { Ports } from './ports.ts'

const WATCH_EVERY_MS = 1000
const PAUSED_TOO_LONG = 'it was paused for too long because Kafka is slow'

/** The state of the connection while it is open; times are of the monotonic clock. */
interface Session {
  readonly socket: StreamSocket
  readonly openedAtMs: number
  readonly subscriptions: Subscriptions
  readonly pauses: PauseBudget
  /** The streams that it delivers or has requested. */
  plan: ConnectionPlan
  lastByteAtMs: number
  /** When market data last arrived; null before the first. */
  lastDataAtMs: number | null
  /** When the last of its streams was confirmed; null before. */
  completeAtMs: number | null
  /** Whether all its streams are subscribed and it has delivered since. */
  isDelivering: boolean
  /** Whether it was dropped: what is left in its buffers is too late to be stamped. */
  isDropped: boolean
  cancelWatch: () => void
}

/** What its slot sees of an open connection. */
type OpenConnection = Readonly<
  Pick<Session, 'openedAtMs' | 'completeAtMs' | 'lastDataAtMs' | 'isDelivering' | 'pauses'>
>

export interface ConnectionEnd {
  readonly wasOpen: boolean
  readonly hasDelivered: boolean
  /** Whether it was dropped to reconnect without a wait. */
  readonly reconnectsAtOnce: boolean
}

/** `delivering`: all its streams are subscribed and it has delivered market data since. */
export type Report = 'opened' | 'delivering' | 'refused' | 'shutdown'

export interface ConnectionListener {
  onReport(connection: WsConsumer, report: Report, reason?: string): void
  /** Called once and last, when it has ended for any reason, except after `onFatal`. */
  onClosed(connection: WsConsumer, end: ConnectionEnd): void
}

export interface WsConsumerOptions {
  readonly id: number
  /** Counts the connections of this id, from 1. */
  readonly attempt: number
  /** Its streams until {@link WsConsumer.follow} changes them. */
  readonly plan: ConnectionPlan
  /** Shared by all connections of the process, because the exchange counts handshakes by IP. */
  readonly gate: ExchangeGate
  readonly ports: Pick<Ports, 'clock'> & { readonly exchange: Pick<Ports['exchange'], 'openSocket'> }
  /** Receives what connections deliver, each with its id. */
  readonly sink: Pick<Core, 'onFrame' | 'connected' | 'joining' | 'left' | 'subscribed' | 'disconnected'>
  readonly queue: Pick<MessageQueue, 'isFull' | 'whenRoom'>
  /** Throws a `TapelineError` if this is not the exchange of the topics. `named` is null for Binance. */
  readonly checkIdentity: (named: string | null) => void
  /** Called when the exchange cannot be used and waiting does not help. */
  readonly onFatal: (error: unknown) => void
}

/**
 * One connection to the combined stream, from the handshake to its end. It can pause, and closes
 * the socket when the exchange falls silent or a pause lasts too long. `ws` answers pings.
 */
export class WsConsumer {
  readonly #options: WsConsumerOptions
  readonly #listener: ConnectionListener
  readonly #log: Logger
  readonly #stopping = new AbortController()
  #plan: ConnectionPlan
  #session: Session | null = null
  /** The socket that is not open yet. */
  #opening: StreamSocket | null = null
  #end: ConnectionEnd = { wasOpen: false, hasDelivered: false, reconnectsAtOnce: false }
  #running: Promise<void> | null = null

  constructor(options: WsConsumerOptions, listener: ConnectionListener, log: Logger) {
    this.#options = options
    this.#plan = options.plan
    this.#listener = listener
    this.#log = log
  }

  get id(): number {
    return this.#options.id
  }

  /** Null while it is not open. */
  get open(): OpenConnection | null {
    return this.#session
  }

  start(waitMs: number): void {
    this.#running ??= this.#run(waitMs)
  }

  /** Stops reading until the queue has room. */
  async #pause(session: Session): Promise<void> {
    if (session.pauses.isPaused) return
    session.pauses.set(true, this.#nowMs())
    session.socket.pause()
    const { signal } = this.#stopping
    await this.#options.queue.whenRoom(signal).catch(() => {})
    if (signal.aborted || this.#session !== session) return
    const nowMs = this.#nowMs()
    session.pauses.set(false, nowMs)
    session.lastByteAtMs = nowMs
    if (session.pauses.isSpent(nowMs)) this.reconnect(PAUSED_TOO_LONG)
    else session.socket.resume()
  }

  /** Drops the socket, even one that is opening. The next connection does not wait if `atOnce`. */
  reconnect(reason: string, atOnce = false): void {
    this.#opening?.terminate()
    if (this.#session === null || this.#session.isDropped) return
    this.#log.warn({ connection: this.id }, `Reconnecting: ${reason}`)
    this.#end = { ...this.#end, reconnectsAtOnce: atOnce }
    this.#session.isDropped = true
    this.#session.socket.terminate()
  }

  /** Renews the subscription of single streams on the open connection. */
  resubscribe(streams: readonly string[]): void {
    if (this.#session === null) return
    this.#log.warn(
      { connection: this.id, streams },
      'Renewing the subscription of streams that have gone quiet',
    )
    this.#session.subscriptions.renew(streams)
  }

  /** Changes its streams: by requests on an open connection, and in the URL of later ones. */
  follow(plan: ConnectionPlan): void {
    this.#plan = plan
    const session = this.#session
    if (session === null || session.plan === plan) return
    const [before, after] = [new Set(session.plan.streams), new Set(plan.streams)]
    const left = session.plan.streams.filter((stream) => !after.has(stream))
    const joining = plan.streams.filter((stream) => !before.has(stream))
    session.plan = plan
    const { id, sink } = this.#options
    sink.left(id, left)
    session.subscriptions.leave(left)
    sink.joining(id, joining)
    session.subscriptions.join(joining)
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#session?.socket.close()
    await this.#running
  }

  status(): Omit<ConnectionStatus, 'rolloverInMs'> {
    const { id, attempt } = this.#options
    const state = this.#state
    const nowMs = this.#nowMs()
    const ageMs = (atMs: number | null = null) => (atMs === null ? null : Math.round(nowMs - atMs))
    return {
      id,
      state,
      streams: this.#plan.streams.length,
      ageMs: ageMs(this.#session?.openedAtMs),
      lastDataAgeMs: ageMs(this.#session?.lastDataAtMs),
      attempts: state === 'waiting' ? attempt - 1 : attempt,
    }
  }

  get #state(): ConnectionStatus['state'] {
    if (this.#opening !== null) return 'connecting'
    if (this.#session === null) return 'waiting'
    if (this.#session.pauses.isPaused) return 'paused'
    return this.#session.lastDataAtMs === null ? 'open' : 'streaming'
  }

  async #run(waitMs: number): Promise<void> {
    const { signal } = this.#stopping
    const { id, gate, ports, queue, onFatal } = this.#options
    try {
      await sleep(waitMs, signal, ports.clock)
      await queue.whenRoom(signal)
      await gate.wait('handshakes', signal)
      signal.throwIfAborted()
      const ended = await this.#connectUntilClosed()
      if (!signal.aborted) this.#log.warn({ connection: id }, `Connection closed: ${ended}`)
    } catch (error) {
      if (!signal.aborted && isTapelineError(error)) {
        onFatal(error)
        return
      }
      if (!signal.aborted && !gate.failed('handshakes', error))
        this.#log.warn({ connection: id, err: error }, `Cannot connect: ${describeError(error)}`)
    }
    this.#listener.onClosed(this, this.#end)
  }

  /** Resolves with the reason once an opened connection has closed; rejects if it never opened. */
  async #connectUntilClosed(): Promise<string> {
    const { signal } = this.#stopping
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    let session: Session | null = null
    const plan = this.#plan
    const socket = this.#options.ports.exchange.openSocket(plan.url, {
      onOpen: ({ named }) => {
        this.#options.gate.served('handshakes')
        try {
          this.#options.checkIdentity(named)
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
      if (session !== null) this.#finish(session)
      socket.terminate()
    }
  }

  #begin(socket: StreamSocket, plan: ConnectionPlan): Session {
    const nowMs = this.#nowMs()
    const { id, ports, queue, sink } = this.#options
    const session: Session = {
      socket,
      openedAtMs: nowMs,
      subscriptions: new Subscriptions(plan.subscriptions, {
        clock: ports.clock,
        send: (text) => socket.send(text),
        onSubscribed: (streams) => {
          if (session.subscriptions.areComplete) session.completeAtMs ??= this.#nowMs()
          sink.subscribed(id, streams)
        },
        onRefused: (reason) => this.#listener.onReport(this, 'refused', reason),
      }),
      pauses: new PauseBudget(nowMs),
      plan,
      lastByteAtMs: nowMs,
      lastDataAtMs: null,
      completeAtMs: plan.subscriptions.length === 0 ? nowMs : null,
      isDelivering: false,
      isDropped: false,
      cancelWatch: () => {},
    }
    this.#session = session
    this.#opening = null
    sink.connected(id, plan)
    this.#listener.onReport(this, 'opened')
    // Streams may have joined or left while it opened.
    this.follow(this.#plan)
    this.#watchLater(session)
    if (queue.isFull) void this.#pause(session)
    else socket.resume()
    return session
  }

  #finish(session: Session): void {
    this.#session = null
    session.cancelWatch()
    session.subscriptions.stop()
    this.#end = { ...this.#end, wasOpen: true, hasDelivered: session.lastDataAtMs !== null }
    this.#options.sink.disconnected(this.id, session.plan.streams)
  }

  #onFrame(session: Session, frame: Buffer): void {
    if (session.isDropped) return
    const nowMs = this.#nowMs()
    session.lastByteAtMs = nowMs
    const { id, queue, sink } = this.#options
    const outcome = sink.onFrame(frame, id)
    if (queue.isFull) void this.#pause(session)
    if (outcome !== 'event') {
      if (outcome !== 'other') this.#onControl(session, outcome)
      return
    }
    session.lastDataAtMs = nowMs
    if (session.isDelivering || session.completeAtMs === null) return
    session.isDelivering = true
    this.#listener.onReport(this, 'delivering')
  }

  #onControl({ subscriptions }: Session, { control, detail }: ControlFrame): void {
    if (control === 'serverShutdown') {
      this.#listener.onReport(this, 'shutdown', 'the exchange is shutting this server down')
      return
    }
    const details = { connection: this.id, detail: outsideText(detail) }
    if (control === 'error') this.#log.warn(details, 'The exchange refused a request')
    subscriptions.onAnswer(detail)
  }

  #watchLater(session: Session): void {
    session.cancelWatch = this.#options.ports.clock.schedule(WATCH_EVERY_MS, () => {
      const nowMs = this.#nowMs()
      const { isPaused } = session.pauses
      session.subscriptions.check(nowMs, !isPaused)
      if (session.pauses.isSpent(nowMs)) this.reconnect(PAUSED_TOO_LONG)
      else if (!isPaused && nowMs - session.lastByteAtMs > SILENCE_LIMIT_MS)
        this.reconnect('the exchange sent nothing, not even a ping')
      this.#watchLater(session)
    })
  }

  #nowMs(): number {
    return this.#options.ports.clock.monotonicMs()
  }
}
