import { DEFAULT_EVENT_TYPES } from '../../src/foundation/market/event.ts'
import type { TimeUnit } from '../../src/foundation/market/time-unit.ts'
import { openMarket } from '../../src/sandbox/simulator/market/market.ts'
import { MarketCursor } from '../../src/sandbox/simulator/market/market-cursor.ts'
import { BLOCK_MS, LISTED_AT_MS } from '../../src/sandbox/simulator/market/market-plan.ts'
import type { StreamConnection } from '../../src/sandbox/simulator/server/stream-connection.ts'
import { TextFrameEncoder } from '../../src/sandbox/simulator/server/text-frame.ts'
import { withMicroseconds } from '../../src/sandbox/simulator/server/time-units.ts'
import type { Frames } from './feed.ts'

/** Consecutive frames, encoded for the wire. */
interface Chunk {
  readonly bytes: Buffer
  /** Offset of the end of each frame. */
  readonly ends: Uint32Array
  /** Offset of the digits of a frame's `E`; 0 for a frame without one (bookTicker). */
  readonly eventAt: Uint32Array
}

const FRAMES_PER_CHUNK = 256
/** The market advances by this step. */
const STEP_MS = 20
const BYTES_PER_FRAME = 512
const EVENT_TIME = '"E":'
/** The streams that ingestion subscribes to. */
const AUDIENCE = {
  has: (stream: string) => DEFAULT_EVENT_TYPES.some((type) => stream.endsWith(`@${type}`)),
}

/**
 * Frames of a simulated market, generated ahead of time so that serving them costs next to nothing.
 * The same symbols give the same frames, with consecutive ids.
 */
export class FrameStore implements Frames {
  readonly timeUnit: TimeUnit
  readonly #cursors: readonly MarketCursor[]
  readonly #encoder = new TextFrameEncoder()
  readonly #chunks: Chunk[] = []
  #nowMs = LISTED_AT_MS + 100 * BLOCK_MS
  #bytes = Buffer.alloc(0)
  #length = 0
  #ends: number[] = []
  #eventAt: number[] = []

  /** @param messagesPerSecond in market time, which is independent of the wall clock */
  constructor(symbols: readonly string[], messagesPerSecond: number, timeUnit: TimeUnit) {
    this.timeUnit = timeUnit
    const markets = openMarket({ symbols, seed: 1, messagesPerSecond, skew: 1 })
    this.#cursors = [...markets.values()].map((market) => new MarketCursor(market, this.#nowMs))
  }

  prepare(count: number): void {
    this.chunk(Math.max(0, Math.ceil(count / FRAMES_PER_CHUNK) - 1))
  }

  enqueue(
    connection: Pick<StreamConnection, 'enqueue'>,
    first: number,
    end: number,
    eventAt: ((index: number) => number) | null,
  ): void {
    for (let next = first; next < end; ) {
      const chunk = this.chunk(Math.floor(next / FRAMES_PER_CHUNK))
      const from = next % FRAMES_PER_CHUNK
      const to = Math.min(FRAMES_PER_CHUNK, from + end - next)
      if (eventAt !== null) {
        for (let i = from; i < to; i++) {
          const at = chunk.eventAt[i] ?? 0
          if (at > 0) chunk.bytes.write(String(eventAt(next + i - from)), at, 'latin1')
        }
      }
      const start = from === 0 ? 0 : (chunk.ends[from - 1] ?? 0)
      connection.enqueue(chunk.bytes.subarray(start, chunk.ends[to - 1]))
      next += to - from
    }
  }

  /** Returns the chunk with this index, generating chunks up to it as needed. */
  chunk(index: number): Chunk {
    for (;;) {
      const chunk = this.#chunks[index]
      if (chunk !== undefined) return chunk
      this.#goOn()
    }
  }

  #goOn(): void {
    this.#nowMs += STEP_MS
    for (const cursor of this.#cursors) {
      while (cursor.needsBlock(this.#nowMs)) cursor.makeBlock()
      if (cursor.dueMs <= this.#nowMs) cursor.deliver(this.#nowMs, AUDIENCE, (_, text) => this.#add(text))
    }
  }

  #add(text: string): void {
    const frame = this.#encoder.encode(this.timeUnit === 'microsecond' ? withMicroseconds(text) : text)
    if (this.#bytes.length === 0) this.#bytes = Buffer.allocUnsafeSlow(FRAMES_PER_CHUNK * BYTES_PER_FRAME)
    const at = frame.indexOf(EVENT_TIME)
    this.#eventAt.push(at < 0 ? 0 : this.#length + at + EVENT_TIME.length)
    this.#bytes.set(frame, this.#length)
    this.#length += frame.length
    this.#ends.push(this.#length)
    if (this.#ends.length < FRAMES_PER_CHUNK) return
    this.#chunks.push({
      bytes: Buffer.from(this.#bytes.subarray(0, this.#length)),
      ends: Uint32Array.from(this.#ends),
      eventAt: Uint32Array.from(this.#eventAt),
    })
    this.#length = 0
    this.#ends = []
    this.#eventAt = []
  }
}
