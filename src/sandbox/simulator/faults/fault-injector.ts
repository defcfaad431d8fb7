import { TRADE_TYPES } from '../../../foundation/market/event.ts'
import { describeError, TapelineError } from '../../../foundation/runtime/errors.ts'
import type { MarketPast } from '../market/trade-history.ts'
import type { PortGate } from '../server/port-gate.ts'
import type { StreamConnection } from '../server/stream-connection.ts'
import type { FrameInterceptor, StreamHooks, StreamServer, UpgradeFate } from '../server/stream-server.ts'
import { DelayLine } from './delay-line.ts'
import { type FrameMatcher, fateOf, garbageFrame, matches, Stalls } from './fault-frames.ts'
import { type FaultKind, type FaultRequest, parseFault } from './fault-kinds.ts'
import { alterLevel, type LevelChange } from './fault-levels.ts'
import {
  type Fault,
  type FaultListener,
  FaultRegistry,
  type FaultReport,
  reportOf,
} from './fault-registry.ts'
import { StruckFrames } from './struck-frames.ts'

/** Starts and stops the trading of a symbol. Does nothing if it is in that state already. */
export type SetTrading = (symbol: string, isTrading: boolean) => void

interface Parts {
  readonly streams: StreamServer
  readonly door: PortGate
  readonly past: MarketPast
  /** Undefined in a replay. */
  readonly setTrading: SetTrading | undefined
  readonly seed: number
}

interface FaultHandle {
  readonly id: number
  report(): FaultReport
  /** Ends the fault now; delayed frames continue. */
  end(): FaultReport
}

const FRAME_KINDS: readonly FaultKind[] = ['drop', 'duplicate', 'delay', 'swap', 'alter', 'garbage', 'stall']

/** Applies the active faults to frames, connections, requests and the server's port. */
export class FaultInjector implements FaultListener, StreamHooks {
  readonly book: FaultRegistry
  /** Set only while a fault affects frames, or some are still delayed. Otherwise frames bypass it. */
  frame: FrameInterceptor | undefined
  readonly #parts: Parts
  readonly #struck = new StruckFrames()
  readonly #stalls = new Stalls()
  /** By connection. A line is kept until its connection ends or it is empty. */
  readonly #lines = new Map<number, DelayLine>()
  /** By connection and stream: a frame that waits for the next one. */
  readonly #waiting = new Map<string, () => void>()
  /** By fault: actions that undo it at its end. */
  readonly #undo = new Map<number, Array<() => void>>()
  #isClosed = false

  constructor(parts: Parts) {
    this.#parts = parts
    this.book = new FaultRegistry({ clock: parts.streams.clock, seed: parts.seed, listener: this })
  }

  /** @throws {TapelineError} `INPUT` naming each invalid field */
  add(request: FaultRequest): FaultHandle {
    const spec = parseFault(request)
    const { setTrading, past } = this.#parts
    const isOfListing = spec.kind === 'halt' || spec.kind === 'delist' || spec.kind === 'list'
    const isOfUpdates = spec.kind === 'restartIds' && spec.ids === 'update'
    if ((isOfListing || isOfUpdates) && setTrading === undefined)
      throw new TapelineError('INPUT', `${spec.kind}: not supported in a replay.`)
    if ((isOfListing || spec.kind === 'restartIds') && !past.symbols.includes(spec.symbol)) {
      throw new TapelineError('INPUT', `symbol: ${spec.symbol} is not listed here.`, {
        fix: `Use one of ${past.symbols.join(', ')}.`,
      })
    }
    const fault = this.book.add(spec)
    const report = () => reportOf(fault)
    return {
      id: fault.id,
      report,
      end: () => {
        this.book.end(fault.id)
        return report()
      },
    }
  }

  /** Waiting and active faults, and the latest thousand that have ended, by id. */
  list(): readonly FaultReport[] {
    return this.book.list()
  }

  /** Frames of order books and quotes that were affected. */
  struck(): ReturnType<StruckFrames['report']> {
    return this.#struck.report()
  }

  /** Ends all faults. */
  clear(): void {
    this.book.endAll()
  }

  close(): void {
    this.#isClosed = true
    this.clear()
    for (const line of this.#lines.values()) line.clear()
  }

  began(fault: Fault): void {
    const { spec } = fault
    const { streams, door, past } = this.#parts
    switch (spec.kind) {
      case 'stall':
        this.#stalls.began(fault.id, streams.newestConnectionId)
        break
      case 'cut':
        for (const connection of this.#connectionsOf(spec)) {
          fault.struck++
          if (spec.how === 'close') connection.close(spec.code, spec.reason)
          else if (spec.how === 'end') connection.socket.destroy()
          else connection.socket.resetAndDestroy()
        }
        break
      case 'serverShutdown':
        for (const connection of this.#connectionsOf(spec)) {
          fault.struck++
          connection.announceShutdown()
          this.#atEndOf(fault, () => {
            if (fault.endedBy === 'time') connection.close(1001, 'Server shutdown')
          })
        }
        break
      case 'freeze':
        for (const connection of this.#connectionsOf(spec)) this.#freeze(fault, spec, connection)
        break
      case 'unreachable':
        door.shut()
        this.#atEndOf(fault, () => this.#openDoor(fault))
        break
      case 'restartIds':
        fault.struck++
        past.restartIds(spec.symbol, spec.ids === 'both' ? ['trade', 'aggTrade'] : [spec.ids], spec.firstId)
        break
      case 'halt':
      case 'delist':
        fault.struck++
        this.#parts.setTrading?.(spec.symbol, false)
        break
      case 'list':
        fault.struck++
        past.restartIds(spec.symbol, TRADE_TYPES, spec.firstId)
        for (const { id, spec: other } of this.book.active('delist'))
          if (other.symbol === spec.symbol) this.book.end(id)
        break
      default:
        // The others act on each frame, connection or request.
        break
    }
    this.#hook()
  }

  ended(fault: Fault): void {
    const { spec } = fault
    if (spec.kind === 'halt' || spec.kind === 'delist') {
      const others = [...this.book.active('halt'), ...this.book.active('delist')]
      if (!others.some((other) => other.spec.symbol === spec.symbol))
        this.#parts.setTrading?.(spec.symbol, true)
    }
    this.#stalls.ended(fault.id)
    for (const undo of this.#undo.get(fault.id) ?? []) undo()
    this.#undo.delete(fault.id)
    this.#hook()
  }

  upgrade(): UpgradeFate | undefined {
    const fault = this.book.active('refuse').find((each) => this.book.strikes(each))
    if (fault === undefined) return undefined
    const { how, status, retryAfterSeconds } = fault.spec
    return how === 'reset' ? 'reset' : { status, retryAfterSeconds }
  }

  opened(connection: StreamConnection): void {
    for (const fault of this.book.active('freeze')) {
      if (isOneOf(fault.spec, connection)) this.#freeze(fault, fault.spec, connection)
    }
    for (const fault of this.book.active('closeAfterHandshake')) {
      if (!this.book.strikes(fault)) continue
      const { code, reason, delayMs } = fault.spec
      if (delayMs === 0) connection.close(code, reason)
      else connection.after(delayMs, () => connection.close(code, reason))
    }
  }

  closed(connection: StreamConnection): void {
    this.#lines.get(connection.id)?.clear()
    this.#lines.delete(connection.id)
    for (const key of this.#waiting.keys()) if (key.startsWith(`${connection.id} `)) this.#waiting.delete(key)
    this.#hook()
  }

  subscribed(connection: StreamConnection, stream: string): void {
    this.#stalls.subscribed(connection.id, stream)
  }

  mayPing(connection: StreamConnection): boolean {
    return this.#stalls.allowPing(this.book.active('stall'), connection)
  }

  #hook(): void {
    const concernsFrames = FRAME_KINDS.some((kind) => this.book.active(kind).length > 0)
    this.frame = concernsFrames || this.#lines.size + this.#waiting.size > 0 ? this.#intercept : undefined
    this.#parts.streams.hooks = this.book.isQuiet && this.frame === undefined ? undefined : this
  }

  readonly #intercept: FrameInterceptor = (frame, forward) => {
    const { copies, delayMs, garbage, altering, struckBy } = fateOf(frame, this.book, this.#stalls)
    const key = `${frame.connectionId} ${frame.stream}`
    const earlier = this.#waiting.get(key)
    const swap =
      copies === 0 || earlier !== undefined
        ? undefined
        : this.book.active('swap').find((fault) => matches(fault.spec, frame) && this.book.strikes(fault))
    const changes = new Map<number, LevelChange>()
    let { text } = frame
    for (const fault of altering) {
      const altered = alterLevel(fault, text)
      text = altered.text
      changes.set(fault.id, altered.change)
    }
    this.#struck.add(swap === undefined ? struckBy : [...struckBy, swap], frame, frame.text, changes)
    if (copies === 0) return
    const send = () => {
      for (const spec of garbage) forward(garbageFrame(spec, text))
      for (let copy = 0; copy < copies; copy++) forward(text)
    }
    const enter = () => this.#enterLine(frame.connectionId, delayMs, send)
    if (swap !== undefined) {
      this.#waiting.set(key, enter)
      // The fault may have ended with this frame.
      this.#hook()
      return
    }
    enter()
    if (earlier === undefined) return
    this.#waiting.delete(key)
    earlier()
    this.#hook()
  }

  #enterLine(connectionId: number, delayMs: number, send: () => void): void {
    const line = this.#lines.get(connectionId) ?? new DelayLine(this.#parts.streams.clock)
    line.enter(delayMs, send)
    if (!line.isEmpty) this.#lines.set(connectionId, line)
    else if (this.#lines.delete(connectionId)) this.#hook()
  }

  #connectionsOf(spec: FrameMatcher): StreamConnection[] {
    return [...this.#parts.streams.connections].filter((connection) => isOneOf(spec, connection))
  }

  #freeze(fault: Fault, what: { reading: boolean; writing: boolean }, connection: StreamConnection): void {
    fault.struck++
    this.#atEndOf(fault, connection.freeze(what))
  }

  #atEndOf(fault: Fault, undo: () => void): void {
    this.#undo.set(fault.id, [...(this.#undo.get(fault.id) ?? []), undo])
  }

  #openDoor(fault: Fault): void {
    if (this.#isClosed || this.book.active('unreachable').length > 0) return
    this.#parts.door.open().catch((error: unknown) => {
      fault.problem = describeError(error)
    })
  }
}

/** Whether a fault matches this connection, by its id and by a subscribed stream. */
function isOneOf(spec: FrameMatcher, { id: connectionId, streams }: StreamConnection): boolean {
  if (spec.stream === undefined) return spec.connection === undefined || spec.connection === connectionId
  return [...streams].some((stream) => matches(spec, { connectionId, stream }))
}
