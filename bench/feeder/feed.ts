import { MICROSECONDS_IN } from '../../src/foundation/market/time-unit.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import type { StreamConnection } from '../../src/sandbox/simulator/server/stream-connection.ts'
import type { FrameStore } from './frame-store.ts'

/** What a reader may be behind before the feeder waits for it. */
const BUFFERED_BYTES = 1 << 20
const WAIT_MS = 2
const TICK_MS = 1

/** When a feed began and ended, in microseconds since the Unix epoch. */
export interface Fed {
  readonly startedUs: number
  readonly endedUs: number
}

/** Sends frames of a store to one client. */
export class Feed {
  readonly #frames: FrameStore
  readonly #client: () => Promise<StreamConnection>
  readonly #clock: Clock
  #next = 0

  /** @param client asked for at the beginning of each feed */
  constructor(frames: FrameStore, client: () => Promise<StreamConnection>, clock: Clock) {
    this.#frames = frames
    this.#client = client
    this.#clock = clock
  }

  /** The next frame is the first again. */
  rewind(): void {
    this.#next = 0
  }

  /** As fast as the client takes them. */
  async flatOut(count: number): Promise<Fed> {
    const connection = await this.#client()
    const startedUs = this.#clock.wallMicros()
    for (const end = this.#next + count; this.#next < end; ) {
      this.#send(connection, Math.min(end, this.#next + 1024), null)
      while (connection.bufferedBytes > BUFFERED_BYTES) await this.#pause(WAIT_MS)
    }
    return { startedUs, endedUs: this.#clock.wallMicros() }
  }

  /**
   * At a steady rate. A frame's `E` is the moment it was to be sent at, whether or not this process came to it in time:
   * a delay here is a delay of the event, and not left out of any figure.
   */
  async steadily(count: number, perSecond: number): Promise<Fed> {
    const connection = await this.#client()
    const [startedUs, begun] = [this.#clock.wallMicros(), this.#clock.monotonicMs()]
    const first = this.#next
    while (this.#next < first + count) {
      await this.#pause(TICK_MS)
      const due = Math.floor(((this.#clock.monotonicMs() - begun) * perSecond) / 1000)
      const unit = MICROSECONDS_IN[this.#frames.timeUnit]
      const dueAt = (index: number) =>
        Math.floor((startedUs + (Math.max(0, index - first) * 1_000_000) / perSecond) / unit)
      this.#send(connection, Math.min(first + count, first + due), dueAt)
    }
    return { startedUs, endedUs: this.#clock.wallMicros() }
  }

  #send(connection: StreamConnection, end: number, eventAt: ((index: number) => number) | null): void {
    if (!connection.isOpen) throw new Error('The client has closed its connection in the middle of a feed')
    while (this.#next < end) {
      const perChunk = this.#frames.chunk(0).ends.length
      const chunk = this.#frames.chunk(Math.floor(this.#next / perChunk))
      const from = this.#next % perChunk
      const to = Math.min(perChunk, from + end - this.#next)
      if (eventAt !== null) {
        for (let i = from; i < to; i++) {
          const at = chunk.eventAt[i] ?? 0
          if (at > 0) chunk.bytes.write(String(eventAt(this.#next + i - from)), at, 'latin1')
        }
      }
      const start = from === 0 ? 0 : (chunk.ends[from - 1] ?? 0)
      connection.enqueue(chunk.bytes.subarray(start, chunk.ends[to - 1]))
      this.#next += to - from
    }
    connection.flush()
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.#clock.schedule(ms, resolve))
  }
}
