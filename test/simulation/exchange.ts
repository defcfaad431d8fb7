import { ExchangeRefusal, refusalOf } from '../../src/foundation/binance/refusal.ts'
import type { OpenSocket, SocketEvents, StreamSocket } from '../../src/foundation/binance/stream-socket.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { type LifeClock, ROUNDING_MS } from '../support/life-clock.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { both, FATE, loseOnTheWay } from './fates.ts'
import type { MarketEvent } from './market.ts'
import { Stalls } from './stalls.ts'

const PING_EVERY_MS = 20_000
const MAX_AGE_MS = 24 * 3_600_000

interface Connection {
  readonly id: number
  readonly life: LifeClock
  readonly events: SocketEvents
  readonly streams: Set<string>
  readonly openedAtMs: number
  state: 'connecting' | 'open' | 'closed'
  paused: boolean
  /** Bytes that the client's kernel buffers while it does not read. */
  kernel: Array<() => void>
  lagMs: number
  lastArrivalMs: number
  dropNext: number
  duplicateNext: number
  garbageNext: number
  requests: number[]
}

/** Response to the next connections. */
export type Refusal =
  | 'refuse'
  | 'hang'
  | 'close after handshake'
  | { readonly status: number; readonly retryAfter: string | null }

/**
 * The exchange's WebSocket side: connections with individual delays, their faults, and a record of
 * the fate of every quote. It records violations of its limits.
 */
export class SimulatedExchange {
  readonly stalls: Stalls
  readonly complaints: string[] = []
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #attempts: number[] = []
  #connections: Connection[] = []
  #ids = 0
  /** By process: when its Retry-After ends. */
  readonly #bannedUntilMs = new WeakMap<LifeClock, number>()
  #refusal: { readonly kind: Refusal; readonly untilMs: number } | null = null
  #otherUnitUntilMs = 0
  /** Whether a stream may be silent now, because its symbol does not trade. */
  mayBeQuiet: (stream: string) => boolean = () => false

  constructor(clock: VirtualClock, random: Random) {
    this.#clock = clock
    this.stalls = new Stalls(clock)
    this.#random = random
  }

  /** The sockets of one process. */
  openSocket(life: LifeClock): OpenSocket {
    return (url, events) => this.#open(life, url, events)
  }

  /** Its process was killed: the system closes its sockets. */
  abandon(life: LifeClock): void {
    for (const connection of this.#connections) if (connection.life === life) connection.state = 'closed'
    this.#connections = this.#connections.filter(({ state }) => state !== 'closed')
  }

  get openConnections(): number {
    return this.#connections.filter(({ state }) => state === 'open').length
  }

  readonly emit = (events: readonly MarketEvent[]): void => {
    const open = this.#connections.filter(({ state }) => state === 'open')
    for (const { quote } of events) if (quote !== null) quote.quotes.fates[quote.index] = FATE.nobody
    for (const connection of open) this.#write(connection, events)
  }

  /** Closes one open connection, or all. */
  cut(all: boolean): void {
    const open = this.#connections.filter(({ state }) => state === 'open')
    for (const connection of all ? open : open.slice(0, 1)) this.#closeByServer(connection, '1006')
  }

  drop(frames: number): void {
    this.#onOne((connection) => {
      connection.dropNext += frames
    })
  }

  duplicate(frames: number): void {
    this.#onOne((connection) => {
      connection.duplicateNext += frames
    })
  }

  garbage(frames: number): void {
    this.#onOne((connection) => {
      connection.garbageNext += frames
    })
  }

  /** Delays all further frames of one connection by this time. */
  delay(lagMs: number): void {
    this.#onOne((connection) => {
      connection.lagMs = lagMs
    })
  }

  refuse(kind: Refusal, forMs: number): void {
    this.#refusal = { kind, untilMs: this.#clock.monotonicMs() + forMs }
  }

  /** Sends times in microseconds, whatever the URL requests. */
  otherUnit(forMs: number): void {
    this.#otherUnitUntilMs = this.#clock.monotonicMs() + forMs
  }

  get sendsOtherUnit(): boolean {
    return this.#clock.monotonicMs() < this.#otherUnitUntilMs
  }

  serverShutdown(): void {
    const text = '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}'
    for (const connection of this.#connections.filter(({ state }) => state === 'open')) {
      this.#arrive(connection, () => connection.events.onFrame(Buffer.from(text)))
      this.#clock.schedule(10_000, () => this.#closeByServer(connection, '1001'))
    }
  }

  /** Ends all faults. */
  heal(): void {
    this.stalls.end()
    this.#refusal = null
    this.#otherUnitUntilMs = 0
    for (const connection of this.#connections)
      Object.assign(connection, { dropNext: 0, duplicateNext: 0, garbageNext: 0, lagMs: 20 })
  }

  #open(life: LifeClock, url: string, events: SocketEvents): StreamSocket {
    this.#countAttempt()
    if (this.#clock.monotonicMs() + ROUNDING_MS < (this.#bannedUntilMs.get(life) ?? 0))
      this.complaints.push('a handshake before the end of Retry-After')
    const connection: Connection = {
      id: this.#ids++,
      life,
      events,
      streams: new Set(new URL(url).searchParams.get('streams')?.split('/')),
      openedAtMs: this.#clock.monotonicMs(),
      state: 'connecting',
      paused: true,
      kernel: [],
      lagMs: this.#random.between(5, 200),
      lastArrivalMs: 0,
      dropNext: 0,
      duplicateNext: 0,
      garbageNext: 0,
      requests: [],
    }
    this.#connections.push(connection)
    this.#answerUpgrade(connection)
    return {
      pause: () => {
        connection.paused = true
      },
      resume: () => {
        connection.paused = false
        const held = connection.kernel
        connection.kernel = []
        for (const read of held) this.#later(connection, 0, read)
      },
      send: (text) => this.#onRequest(connection, text),
      close: () => this.#closeByClient(connection, this.#random.between(10, 200)),
      terminate: () => this.#closeByClient(connection, 0),
    }
  }

  #answerUpgrade(connection: Connection): void {
    const refusal = this.#refusal
    const kind = refusal !== null && refusal.untilMs > this.#clock.monotonicMs() ? refusal.kind : null
    const afterMs = kind === 'hang' ? 10_000 : this.#random.between(20, 300)
    connection.life.schedule(afterMs, () => {
      if (connection.state !== 'connecting') return
      if (kind === 'refuse' || kind === 'hang') {
        this.#forget(connection)
        connection.events.onFailed(new Error('HTTP 503'))
        return
      }
      if (kind !== null && typeof kind === 'object') {
        const refusal = refusalOf(kind.status, kind.retryAfter, '', 0)
        this.#bannedUntilMs.set(connection.life, this.#clock.monotonicMs() + (refusal.retryAfterMs ?? 0))
        this.#forget(connection)
        connection.events.onFailed(new ExchangeRefusal('the handshake was refused', refusal))
        return
      }
      connection.state = 'open'
      connection.events.onOpen('simulated')
      this.#ping(connection)
      this.#clock.schedule(MAX_AGE_MS, () => this.#closeByServer(connection, '1001'))
      if (kind === 'close after handshake') {
        this.#clock.schedule(20, () => this.#closeByServer(connection, '1008'))
      }
    })
  }

  #ping(connection: Connection): void {
    this.#clock.schedule(PING_EVERY_MS, () => {
      if (connection.state !== 'open') return
      if (!this.stalls.silencesPings(connection.openedAtMs))
        this.#arrive(connection, () => connection.events.onPing())
      this.#ping(connection)
    })
  }

  #write(connection: Connection, events: readonly MarketEvent[]): void {
    const frames: Buffer[] = []
    const quotes: Array<NonNullable<MarketEvent['quote']>> = []
    for (const { stream, frame, quote } of events) {
      if (!connection.streams.has(stream)) continue
      const stall = this.stalls.strike(connection.openedAtMs, stream)
      let fate: number = FATE.sent
      if (stall !== null) fate = FATE.stalled + stall
      else if (connection.dropNext > 0) {
        connection.dropNext--
        fate = FATE.dropped
      } else {
        frames.push(this.sendsOtherUnit ? inMicroseconds(frame) : frame)
        if (connection.duplicateNext > 0) {
          connection.duplicateNext--
          frames.push(frame)
        }
        if (connection.garbageNext > 0) {
          connection.garbageNext--
          frames.push(frame.subarray(0, frame.length - 7))
        }
      }
      if (quote === null) continue
      quote.quotes.fates[quote.index] = both(quote.quotes.fates[quote.index] ?? 0, fate)
      if (fate === FATE.sent) quotes.push(quote)
    }
    if (frames.length === 0) return
    const read = () => {
      for (const frame of frames) if (connection.state === 'open') connection.events.onFrame(frame)
    }
    this.#arrive(connection, read, () => loseOnTheWay(quotes))
  }

  /** Delivers to the client, in the order of sending. */
  #arrive(connection: Connection, read: () => void, onLost: () => void = () => {}): void {
    const nowMs = this.#clock.monotonicMs()
    const atMs = Math.max(connection.lastArrivalMs, nowMs + connection.lagMs)
    connection.lastArrivalMs = atMs
    this.#later(connection, atMs - nowMs, read, onLost)
  }

  #later(connection: Connection, delayMs: number, read: () => void, onLost: () => void = () => {}): void {
    this.#clock.schedule(delayMs, () => {
      if (connection.state !== 'open') return onLost()
      // A process that was stopped runs its timers before it reads its sockets.
      const stoppedMs = connection.life.stoppedForMs
      if (stoppedMs > 0) this.#later(connection, stoppedMs + 0.01, read, onLost)
      else if (connection.paused) connection.kernel.push(read)
      else read()
    })
  }

  #onRequest(connection: Connection, text: string): void {
    const nowMs = this.#clock.monotonicMs()
    connection.requests = [...connection.requests.filter((atMs) => nowMs - atMs < 1000), nowMs]
    if (connection.requests.length > 5)
      this.complaints.push('more than 5 messages per second on a connection')
    const { method, params, id } = JSON.parse(text)
    for (const stream of params) this.#onSubscription(connection, method, stream)
    this.#arrive(connection, () => connection.events.onFrame(Buffer.from(`{"result":null,"id":${id}}`)))
  }

  #onSubscription(connection: Connection, method: string, stream: string): void {
    if (method !== 'UNSUBSCRIBE') {
      connection.streams.add(stream)
      return
    }
    connection.streams.delete(stream)
    if (!this.mayBeQuiet(stream)) this.stalls.subscribedAnew(stream, connection.life.ageMs)
  }

  #countAttempt(): void {
    const nowMs = this.#clock.monotonicMs()
    this.#attempts.push(nowMs)
    while (nowMs - (this.#attempts[0] ?? nowMs) > 5 * 60_000) this.#attempts.shift()
    if (this.#attempts.length > 300) this.complaints.push('more than 300 connections in 5 minutes')
  }

  #closeByServer(connection: Connection, reason: string): void {
    if (connection.state !== 'open') return
    this.#forget(connection)
    connection.life.schedule(connection.lagMs, () => connection.events.onClose(reason))
  }

  #closeByClient(connection: Connection, afterMs: number): void {
    if (connection.state === 'closed') return
    const { state } = connection
    if (afterMs === 0) this.#forget(connection)
    connection.life.schedule(afterMs, () => {
      if (afterMs > 0 && connection.state === 'closed') return
      this.#forget(connection)
      if (state === 'open') connection.events.onClose('1000')
      else connection.events.onFailed(new Error('closed before it was open'))
    })
  }

  #forget(connection: Connection): void {
    connection.state = 'closed'
    this.#connections = this.#connections.filter((one) => one !== connection)
    // Once its last connection is gone, ingestion knows that it may have missed events since its
    // last frame.
    const others = this.#connections.some(({ life, state }) => life === connection.life && state === 'open')
    if (others) return
    this.stalls.silencedSince(connection.openedAtMs)
  }

  #onOne(act: (connection: Connection) => void): void {
    const open = this.#connections.filter(({ state }) => state === 'open')
    if (open.length > 0) act(this.#random.pick(open))
  }
}

function inMicroseconds(frame: Buffer): Buffer {
  return Buffer.from(frame.toString().replaceAll(/"([ET])":(\d+)/g, '"$1":$2000'))
}
