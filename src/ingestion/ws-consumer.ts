import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import { SILENCE_LIMIT_MS, type StreamSocket } from '../foundation/binance/stream-socket.ts'
import { sleep } from '../foundation/runtime/backoff.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConnectionStatus } from '../foundation/telemetry/status.ts'
import { PauseBudget } from './connection/pause-budget.ts'
import { Subscriptions } from './connection/subscriptions.ts'
import type { ConnectionEnd, ConnectionListener, StreamSink } from './connection-listener.ts'
import type { MessageQueue } from './messages/message-queue.ts'
import type { Ports } from './ports.ts'

const WATCH_EVERY_MS = 1000

/** The state of the connection while it is open. */
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
  delivering: boolean
  /** Whether it was dropped: what is left in its buffers is too late to be stamped. */
  dropped: boolean
  cancelWatch: (() => void) | null
}

export interface WsConsumerOptions {
  readonly id: number
  /** Counts the connections of this id, from 1. */
  readonly attempt: number
  /** Its streams until {@link WsConsumer.follow} changes them. */
  readonly plan: ConnectionPlan
  readonly gate: ExchangeGate
  readonly ports: Pick<Ports, 'clock'> & { readonly exchange: Pick<Ports['exchange'], 'openSocket'> }
  readonly sink: StreamSink
  /** The queue that the sink fills. */
  readonly queue: Pick<MessageQueue, 'isFull' | 'whenRoom'>
  /**
   * Throws a `TapelineError` if this is not the exchange that the topics belong to.
   *
   * @param named the exchange's name in the upgrade response; null for Binance, which sends none
   */
  readonly checkIdentity: (named: string | null) => void
}

/**
 * One connection to the combined stream, from the handshake to its end. It can pause, and closes
 * the socket when the exchange falls silent or a pause lasts too long. The `ws` library answers
 * pings. Its slot opens the next one.
 */
export class WsConsumer {
  readonly #options: WsConsumerOptions
  readonly #listener: ConnectionListener<WsConsumer>
  readonly #log: Logger
  readonly #stopping = new AbortController()
  #plan: ConnectionPlan
  #session: Session | null = null
  /** The socket that is not open yet. */
  #opening: StreamSocket | null = null
  #phase: 'waiting' | 'connecting' = 'waiting'
  #end: ConnectionEnd = { streams: null, hasDelivered: false, reconnectsAtOnce: false }
  #running: Promise<void> | null = null

  constructor(options: WsConsumerOptions, listener: ConnectionListener<WsConsumer>, log: Logger) {
    this.#options = options
    this.#plan = options.plan
    this.#listener = listener
    this.#log = log
  }

  get id(): number {
    return this.#options.id
  }

  /** When it opened, on the monotonic clock; null while it is not open. */
  get openedAtMs(): number | null {
    return this.#session?.openedAtMs ?? null
  }

  /** Since when all its streams are subscribed, on the monotonic clock; null while they are not. */
  get completeAtMs(): number | null {
    return this.#session?.completeAtMs ?? null
  }

  /**
   * When it last delivered market data, on the monotonic clock; null if it has not since it opened.
   */
  get lastDataAtMs(): number | null {
    return this.#session?.lastDataAtMs ?? null
  }

  /** Whether all its streams are subscribed and it has delivered since. */
  get isDelivering(): boolean {
    return this.#session?.delivering ?? false
  }

  get isOpen(): boolean {
    return this.#session !== null
  }

  /** Connects after a wait. */
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
    if (session.pauses.isSpent(nowMs)) this.#dropForPauses()
    else session.socket.resume()
  }

  /** Drops the socket, even one that is opening. The next connection does not wait if `atOnce`. */
  reconnect(reason: string, atOnce = false): void {
    this.#opening?.terminate()
    if (this.#session === null || this.#session.dropped) return
    this.#log.warn({ connection: this.#options.id }, `Reconnecting: ${reason}`)
    this.#end = { ...this.#end, reconnectsAtOnce: atOnce }
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
      attempts: this.#phase === 'waiting' ? this.#options.attempt - 1 : this.#options.attempt,
    }
  }

  async #run(waitMs: number): Promise<void> {
    const { signal } = this.#stopping
    const { id, gate, ports, queue, sink } = this.#options
    try {
      await sleep(waitMs, signal, ports.clock)
      await queue.whenRoom(signal)
      await gate.wait('handshakes', signal)
      signal.throwIfAborted()
      this.#phase = 'connecting'
      const ended = await this.#connectUntilClosed()
      if (!signal.aborted) this.#log.warn({ connection: id }, `Connection closed: ${ended}`)
    } catch (error) {
      if (!signal.aborted && isTapelineError(error)) {
        this.#listener.onFatal(error)
        return
      }
      if (!signal.aborted && !gate.failed('handshakes', error))
        this.#log.warn({ connection: id, err: error }, `Cannot connect: ${describeError(error)}`)
    }
    this.#phase = 'waiting'
    if (this.#end.streams !== null) sink.disconnected(id, this.#end.streams)
    this.#listener.onClosed(this, this.#end)
  }

  /** Resolves with the reason once an opened connection has closed; rejects if it never opened. */
  async #connectUntilClosed(): Promise<string> {
    const { signal } = this.#stopping
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    let session: Session | null = null
    const plan = this.#plan
    const socket = this.#options.ports.exchange.openSocket(plan.url, {
      onOpen: (named) => {
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
      delivering: false,
      dropped: false,
      cancelWatch: null,
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
    session.cancelWatch?.()
    session.subscriptions.stop()
    const { plan, lastDataAtMs } = session
    this.#end = { ...this.#end, streams: plan.streams, hasDelivered: lastDataAtMs !== null }
  }

  #onFrame(session: Session, frame: Buffer): void {
    if (session.dropped) return
    const nowMs = this.#nowMs()
    session.lastByteAtMs = nowMs
    const { id, queue, sink } = this.#options
    const outcome = sink.onFrame(frame, id)
    if (queue.isFull) void this.#pause(session)
    if (outcome !== 'event') {
      if (outcome !== 'other') this.#listener.onControl(this, outcome)
      return
    }
    session.lastDataAtMs = nowMs
    if (session.delivering || session.completeAtMs === null) return
    session.delivering = true
    this.#listener.onReport(this, 'delivering')
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
    if (session.pauses.isSpent(nowMs)) this.#dropForPauses()
    else if (!session.pauses.isPaused && nowMs - session.lastByteAtMs > SILENCE_LIMIT_MS) {
      this.reconnect('the exchange sent nothing, not even a ping')
    }
  }

  #dropForPauses(): void {
    this.reconnect('it was paused for too long because Kafka is slow')
  }

  #nowMs(): number {
    return this.#options.ports.clock.monotonicMs()
  }
}
