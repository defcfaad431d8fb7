import { MICROSECONDS_IN, type TimeUnit } from '../../src/foundation/market/time-unit.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import type { StreamConnection } from '../../src/sandbox/simulator/server/stream-connection.ts'

/** The feeder waits when a client has more unread bytes than this. */
const BUFFERED_BYTES = 1 << 20
const WAIT_MS = 2
const TICK_MS = 1

/** When a feed began and ended, in microseconds since the Unix epoch. */
export interface Fed {
  readonly startedUs: number
  readonly endedUs: number
}

/** Frames that were prepared for the wire. */
export interface Frames {
  /** Unit of the times in the frames. */
  readonly timeUnit: TimeUnit
  /** Makes what the first `count` frames need. */
  prepare(count: number): void
  /**
   * Adds the frames `[from, to)` for the next flush of a connection. Calls continue one another.
   *
   * @param eventAt returns the event time of a frame, in the unit of the frames; null: the frames decide
   */
  enqueue(
    connection: Pick<StreamConnection, 'enqueue'>,
    from: number,
    to: number,
    eventAt: ((index: number) => number) | null,
  ): void
}

/** Sends frames to one client. */
export class Feed {
  readonly #frames: Frames
  readonly #client: () => Promise<StreamConnection>
  readonly #clock: Clock
  #next = 0

  /** @param client called at the beginning of each feed */
  constructor(frames: Frames, client: () => Promise<StreamConnection>, clock: Clock) {
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
    this.#frames.enqueue(connection, this.#next, end, eventAt)
    this.#next = end
    connection.flush()
  }

  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.#clock.schedule(ms, resolve))
  }
}
