import { MICROSECONDS_IN } from '../../src/foundation/market/time-unit.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import type { StreamConnection } from '../../src/sandbox/simulator/server/stream-connection.ts'
import type { FrameStore } from './frame-store.ts'

/** The feeder waits when a client has more unread bytes than this. */
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

  /** @param client called at the beginning of each feed */
  constructor(frames: FrameStore, client: () => Promise<StreamConnection>, clock: Clock) {
    this.#frames = frames
    this.#client = client
    this.#clock = clock
  }

  /** Starts again with the first frame. */
  rewind(): void {
    this.#next = 0
  }

  /** Sends as fast as the client reads. */
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
   * Sends at a steady rate. A frame's `E` is the moment when it was due, even if this process is
   * late: a delay here counts as a delay of the event, so no figure hides it.
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
    if (!connection.isOpen) throw new Error('The client closed its connection during a feed')
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
