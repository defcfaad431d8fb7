import { streamName, TICK_TYPES } from '../../foundation/market/event.ts'
import { type Clock, wallMs } from '../../foundation/runtime/clock.ts'
import { depthStreams } from './market/depth-cursor.ts'
import type { Market } from './market/market.ts'
import { MarketCursor } from './market/market-cursor.ts'
import type { StreamServer, SubscriptionListener } from './server/stream-server.ts'

const TICK_MS = 8
/** Time limit for creating blocks in one tick. The rest waits for the next tick, and is late. */
const MAKING_MS_PER_TICK = 4
/** After a longer sleep of the machine, connections are closed instead of getting the backlog. */
const LONGEST_STALL_MS = 30_000

/** Delivers the simulated market to the subscribers, each frame at its `E`. */
export class MarketFeed implements SubscriptionListener {
  readonly #markets: Market
  readonly #streams: StreamServer
  readonly #clock: Clock
  readonly #depthGroups: number
  readonly #symbolOfStream = new Map<string, string>()
  readonly #openStreams = new Map<string, number>()
  readonly #cursors = new Map<string, MarketCursor>()
  /** Symbols that do not trade now. */
  readonly #halted = new Set<string>()
  #cancelTick: (() => void) | undefined
  #lastTickMs = 0

  /** @param depthGroups groups of connections, by their number in turn, that get depth diffs with separate cuts */
  constructor(markets: Market, streams: StreamServer, depthGroups: number) {
    this.#markets = markets
    this.#streams = streams
    this.#clock = streams.clock
    this.#depthGroups = depthGroups
    for (const symbol of markets.keys()) {
      const series = TICK_TYPES.map((type) => streamName(symbol, type))
      for (const stream of [...series, ...depthStreams(symbol)]) this.#symbolOfStream.set(stream, symbol)
    }
    streams.listen(this)
  }

  streamOpened(stream: string): void {
    const symbol = this.#symbolOfStream.get(stream)
    if (symbol === undefined) return
    this.#openStreams.set(symbol, (this.#openStreams.get(symbol) ?? 0) + 1)
    if (!this.#halted.has(symbol)) this.#begin(symbol, wallMs(this.#clock))
  }

  #begin(symbol: string, sinceMs: number): void {
    const market = this.#markets.get(symbol)
    if (this.#cursors.has(symbol) || market === undefined) return
    this.#cursors.set(symbol, new MarketCursor(market, sinceMs, this.#depthGroups))
    if (this.#cancelTick !== undefined) return
    this.#lastTickMs = wallMs(this.#clock)
    this.#scheduleTick()
  }

  streamClosed(stream: string): void {
    const symbol = this.#symbolOfStream.get(stream)
    if (symbol === undefined) return
    const left = (this.#openStreams.get(symbol) ?? 0) - 1
    this.#openStreams.set(symbol, left)
    if (left > 0) return
    this.#openStreams.delete(symbol)
    this.#end(symbol)
  }

  #end(symbol: string): void {
    this.#cursors.delete(symbol)
    if (this.#cursors.size === 0) this.stop()
  }

  /** Halts a symbol after the frames that are due, or resumes it. False when nothing changed. */
  setTrading(symbol: string, isTrading: boolean, nowMs: number): boolean {
    if (isTrading !== this.#halted.has(symbol)) return false
    if (isTrading) {
      this.#halted.delete(symbol)
      if (this.#openStreams.has(symbol)) this.#begin(symbol, nowMs + 1)
      return true
    }
    this.#halted.add(symbol)
    const cursor = this.#cursors.get(symbol)
    if (cursor === undefined) return true
    this.#streams.batch(() => this.#deliver(cursor, nowMs))
    this.#end(symbol)
    return true
  }

  stop(): void {
    this.#cancelTick?.()
    this.#cancelTick = undefined
  }

  #scheduleTick(): void {
    this.#cancelTick = this.#clock.schedule(TICK_MS, () => {
      this.#tick()
      if (this.#cancelTick !== undefined) this.#scheduleTick()
    })
  }

  #tick(): void {
    const nowMs = wallMs(this.#clock)
    const stalledMs = nowMs - this.#lastTickMs
    this.#lastTickMs = nowMs
    if (stalledMs > LONGEST_STALL_MS) {
      this.#streams.terminateAll()
      return
    }
    this.#makeBlocks(nowMs)
    this.#streams.batch(() => {
      for (const cursor of this.#cursors.values()) if (cursor.dueMs <= nowMs) this.#deliver(cursor, nowMs)
    })
  }

  #deliver(cursor: MarketCursor, nowMs: number): void {
    const audience = { has: (stream: string) => this.#streams.subscribers(stream) !== undefined }
    cursor.deliver(nowMs, audience, (stream, text, group) => {
      const isInGroup = ({ id }: { readonly id: number }) => id % this.#depthGroups === group
      this.#streams.publish(stream, text, group === undefined ? undefined : isInGroup)
    })
  }

  #makeBlocks(nowMs: number): void {
    const startedMs = this.#clock.monotonicMs()
    for (const cursor of this.#cursors.values()) {
      if (!cursor.needsBlock(nowMs)) continue
      cursor.makeBlock()
      if (this.#clock.monotonicMs() - startedMs > MAKING_MS_PER_TICK) return
    }
  }
}
