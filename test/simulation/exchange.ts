import { ExchangeRefusal, refusalOf } from '../../src/foundation/binance/refusal.ts'
import type { OpenSocket, SocketEvents, StreamSocket } from '../../src/foundation/binance/stream-socket.ts'
import { fateOf, Stalls } from '../../src/sandbox/simulator/faults/fault-frames.ts'
import { type FaultRequest, parseFault } from '../../src/sandbox/simulator/faults/fault-kinds.ts'
import {
  type Fault,
  type FaultListener,
  FaultRegistry,
} from '../../src/sandbox/simulator/faults/fault-registry.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { type LifeClock, ROUNDING_MS } from '../support/life-clock.ts'
import type { VirtualClock } from '../support/virtual-clock.ts'
import { both, FATE, loseOnTheWay } from './fates.ts'
import { CUTS, type DepthUpdate, type MarketEvent, type TrueQuote } from './market.ts'
import { StallWatch } from './stalls.ts'

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
  readonly lagMs: number
  lastArrivalMs: number
  requests: number[]
}

/** A fault of the frames of one connection. */
export type FrameFault = Extract<FaultRequest, { kind: 'drop' | 'duplicate' | 'garbage' | 'delay' }>

/**
 * The exchange's WebSocket side: connections with individual delays, their faults, and a record of
 * the fate of every quote. It records violations of its limits.
 */
export class SimulatedExchange implements FaultListener {
  /** The active faults, shared with REST. */
  readonly book: FaultRegistry
  readonly stalls: StallWatch
  readonly complaints: string[] = []
  readonly #clock: VirtualClock
  readonly #random: Random
  readonly #attempts: number[] = []
  #connections: Connection[] = []
  /** Connections are numbered from 1. */
  #ids = 0
  readonly #held = new Stalls()
  /** By process: when its Retry-After ends. */
  readonly #bannedUntilMs = new WeakMap<LifeClock, number>()
  #otherUnitUntilMs = 0
  /** Whether a stream may be silent now, because its symbol does not trade. */
  mayBeQuiet: (stream: string) => boolean = () => false
  /** Called when a process has read an update of an order book. */
  onUpdateRead: (life: LifeClock, update: DepthUpdate) => void = () => {}

  constructor(clock: VirtualClock, random: Random) {
    this.#clock = clock
    this.book = new FaultRegistry({ clock, seed: 1, listener: this })
    this.stalls = new StallWatch(clock)
    this.#random = random
  }

  /** The sockets of one process. */
  openSocket(life: LifeClock): OpenSocket {
    return (url, events) => this.#connect(life, url, events)
  }

  /** Its process was killed: the system closes its sockets. */
  abandon(life: LifeClock): void {
    for (const connection of this.#connections) if (connection.life === life) connection.state = 'closed'
    this.#connections = this.#connections.filter(({ state }) => state !== 'closed')
  }

  get #open(): Connection[] {
    return this.#connections.filter(({ state }) => state === 'open')
  }

  readonly emit = (events: readonly MarketEvent[]): void => {
    for (const connection of this.#open) this.#write(connection, events)
  }

  /** Adds a fault of the exchange's table: of connections, frames or REST. */
  add(request: FaultRequest): void {
    this.book.add(parseFault(request))
  }

  /** Adds a fault to one open connection, if there is one. A delay replaces an earlier one. */
  addToOne(request: FrameFault): void {
    if (this.#open.length === 0) return
    const { id: connection } = this.#random.pick(this.#open)
    if (request.kind === 'delay')
      for (const { id, spec } of this.book.active('delay'))
        if (spec.connection === connection) this.book.end(id)
    this.add({ ...request, connection })
  }

  cutOldest(): void {
    const [oldest] = this.#open
    if (oldest !== undefined) this.add({ kind: 'cut', connection: oldest.id })
  }

  began(fault: Fault): void {
    const { spec } = fault
    if (spec.kind === 'stall') {
      this.#held.began(fault.id, this.#ids)
      this.stalls.began({ ...fault, spec })
    }
    if (spec.kind !== 'cut' && spec.kind !== 'serverShutdown') return
    for (const connection of this.#open) {
      if (spec.connection !== undefined && spec.connection !== connection.id) continue
      if (spec.kind === 'cut') {
        this.#closeByServer(connection, '1006')
        continue
      }
      const text = '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}'
      this.#arrive(connection, () => connection.events.onFrame(Buffer.from(text)))
      this.#clock.schedule(spec.graceMs, () => this.#closeByServer(connection, '1001'))
    }
  }

  ended({ id }: Fault): void {
    this.#held.ended(id)
    this.stalls.ended(id)
  }

  /** Sends times in microseconds, whatever the URL requests. */
  otherUnit(forMs: number): void {
    this.#otherUnitUntilMs = this.#clock.monotonicMs() + forMs
  }

  get sendsOtherUnit(): boolean {
    return this.#clock.monotonicMs() < this.#otherUnitUntilMs
  }

  /** Ends all faults, except that some rows stay absent. */
  heal(): void {
    for (const { id, state, kind } of this.book.list())
      if (state !== 'ended' && kind !== 'restHole') this.book.end(id)
    this.#otherUnitUntilMs = 0
  }

  #connect(life: LifeClock, url: string, events: SocketEvents): StreamSocket {
    this.#countAttempt()
    if (this.#clock.monotonicMs() + ROUNDING_MS < (this.#bannedUntilMs.get(life) ?? 0))
      this.complaints.push('a handshake before the end of Retry-After')
    const connection: Connection = {
      id: ++this.#ids,
      life,
      events,
      streams: new Set(new URL(url).searchParams.get('streams')?.split('/')),
      openedAtMs: this.#clock.monotonicMs(),
      state: 'connecting',
      paused: true,
      kernel: [],
      lagMs: this.#random.between(5, 200),
      lastArrivalMs: 0,
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
    const hangs = this.book.active('unreachable').length > 0
    const refused = this.book.active('refuse').at(-1)?.spec
    const closing = this.book.active('closeAfterHandshake').at(-1)?.spec
    const afterMs = hangs ? 10_000 : this.#random.between(20, 300)
    connection.life.schedule(afterMs, () => {
      if (connection.state !== 'connecting') return
      if (hangs || refused?.how === 'reset') {
        this.#forget(connection)
        connection.events.onFailed(new Error(hangs ? 'no answer' : 'connection reset'))
        return
      }
      if (refused !== undefined) {
        const { status, retryAfterSeconds } = refused
        const refusal = refusalOf(status, retryAfterSeconds?.toString() ?? null, '', 0)
        this.#bannedUntilMs.set(connection.life, this.#clock.monotonicMs() + (refusal.retryAfterMs ?? 0))
        this.#forget(connection)
        connection.events.onFailed(new ExchangeRefusal('the handshake was refused', refusal))
        return
      }
      connection.state = 'open'
      connection.events.onOpen({ named: 'simulated', timeUnit: null })
      this.#ping(connection)
      this.#clock.schedule(MAX_AGE_MS, () => this.#closeByServer(connection, '1001'))
      if (closing !== undefined)
        this.#clock.schedule(closing.delayMs, () => this.#closeByServer(connection, String(closing.code)))
    })
  }

  #ping(connection: Connection): void {
    this.#clock.schedule(PING_EVERY_MS, () => {
      if (connection.state !== 'open') return
      if (this.#held.allowPing(this.book.active('stall'), connection))
        this.#arrive(connection, () => connection.events.onPing())
      this.#ping(connection)
    })
  }

  #write(connection: Connection, events: readonly MarketEvent[]): void {
    const frames: Buffer[] = []
    const quotes: TrueQuote[] = []
    const updates: DepthUpdate[] = []
    let longestDelayMs = 0
    for (const { stream, frame, quote, update } of events) {
      if (!connection.streams.has(stream)) continue
      if (update !== null && update.cut !== cutOf(connection)) continue
      const { copies, garbage, delayMs, lostTo } = fateOf(
        { connectionId: connection.id, stream },
        this.book,
        this.#held,
      )
      longestDelayMs = Math.max(longestDelayMs, delayMs)
      if (lostTo?.spec.kind === 'stall') this.stalls.struck(lostTo.id)
      const fate =
        lostTo === null ? FATE.sent : lostTo.spec.kind === 'stall' ? FATE.stalled + lostTo.id : FATE.dropped
      for (let copy = 0; copy < copies; copy++)
        frames.push(this.sendsOtherUnit && copy === 0 ? inMicroseconds(frame) : frame)
      if (garbage.length > 0) frames.push(frame.subarray(0, frame.length - 7))
      if (update !== null && fate === FATE.sent) updates.push(update)
      if (quote === null) continue
      quote.fate = both(quote.fate, fate)
      if (fate === FATE.sent) quotes.push(quote)
    }
    if (frames.length === 0) return
    const read = () => {
      for (const frame of frames) if (connection.state === 'open') connection.events.onFrame(frame)
      if (connection.state === 'open')
        for (const update of updates) this.onUpdateRead(connection.life, update)
    }
    this.#arrive(connection, read, { delayMs: longestDelayMs, onLost: () => loseOnTheWay(quotes) })
  }

  /** Delivers to the client, in the order of sending. */
  #arrive(
    connection: Connection,
    read: () => void,
    { delayMs = 0, onLost = () => {} }: { delayMs?: number; onLost?: () => void } = {},
  ): void {
    const nowMs = this.#clock.monotonicMs()
    const atMs = Math.max(connection.lastArrivalMs, nowMs + connection.lagMs + delayMs)
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
    if (this.mayBeQuiet(stream)) return
    const healed = this.stalls.resubscribed(stream, connection.life.ageMs)
    if (healed !== null) this.book.end(healed.id)
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
    for (const kind of ['drop', 'duplicate', 'garbage', 'delay'] as const)
      for (const { id, spec } of this.book.active(kind))
        if (spec.connection === connection.id) this.book.end(id)
    // Once its last connection is gone, ingestion knows that it may have missed events since its
    // last frame.
    const others = this.#connections.some(({ life, state }) => life === connection.life && state === 'open')
    if (others) return
    this.stalls.silencedSince(connection.openedAtMs)
  }
}

/** Consecutive connections often get the same updates of order books, and often not. */
function cutOf({ id }: Connection): (typeof CUTS)[number] {
  return id % 3 === 0 ? CUTS[1] : CUTS[0]
}

function inMicroseconds(frame: Buffer): Buffer {
  return Buffer.from(frame.toString().replaceAll(/"([ET])":(\d+)/g, '"$1":$2000'))
}
