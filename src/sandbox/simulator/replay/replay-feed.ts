import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Clock } from '../../../foundation/runtime/clock.ts'
import type { StreamServer, SubscriptionListener } from '../server/stream-server.ts'
import { captureLines } from './capture-file.ts'
import { type CaptureContent, type CapturedFrame, framesOf } from './capture-frames.ts'
import type { ReplayHistory } from './replay-history.ts'

/** Multiple of the original speed; `max`: as fast as the readers accept it. */
export type ReplaySpeed = number | 'max'

/** Maximum number of frames per batch. Between batches, client messages are processed. */
const FRAMES_PER_BATCH = 256
/** The replay pauses while a reader has more unread bytes. */
const UNREAD_MAX_BYTES = 1_048_576

/**
 * Plays a capture to the subscribers. Its clock starts with the first subscription to a stream of
 * the file. A frame goes only to those subscribed to its stream at that moment. The replay waits
 * for slow readers instead of dropping frames, and then catches up.
 */
export class ReplayFeed implements SubscriptionListener {
  /**
   * Resolves when the last frame has been published. Rejects when the file is invalid or the replay
   * was stopped.
   */
  readonly finished: Promise<void>
  readonly #path: string
  readonly #content: CaptureContent
  readonly #streams: StreamServer
  readonly #history: ReplayHistory
  readonly #speed: ReplaySpeed
  readonly #clock: Clock
  readonly #stopped = new AbortController()
  readonly #start: () => void

  constructor(options: {
    path: string
    content: CaptureContent
    streams: StreamServer
    history: ReplayHistory
    speed: ReplaySpeed
    clock: Clock
  }) {
    this.#path = options.path
    this.#content = options.content
    this.#streams = options.streams
    this.#history = options.history
    this.#speed = options.speed
    this.#clock = options.clock
    const { promise: started, resolve } = Promise.withResolvers<void>()
    this.#start = resolve
    this.finished = this.#play(started)
    // Callers that await it see the rejection. Without one, it must not end the process.
    this.finished.catch(() => undefined)
    this.#streams.listen(this)
  }

  streamOpened(stream: string): void {
    if (this.#content.streams.has(stream)) this.#start()
  }

  streamClosed(): void {
    // The replay continues without subscribers, as the exchange does.
  }

  stop(): void {
    this.#stopped.abort(new DOMException('The replay was stopped before its end', 'AbortError'))
    this.#start()
  }

  async #play(started: Promise<void>): Promise<void> {
    await started
    const startedMs = this.#clock.monotonicMs()
    let firstNs: bigint | undefined
    let batch: CapturedFrame[] = []
    // A timer may fire slightly early. Frames of one instant must still be sent together.
    let reachedMs = startedMs
    try {
      for await (const lines of captureLines(this.#path)) {
        for (const frame of framesOf(this.#path, lines)) {
          firstNs ??= frame.receivedNs
          const dueMs = startedMs + this.#offsetMs(frame.receivedNs - firstNs)
          const early = dueMs > Math.max(reachedMs, this.#clock.monotonicMs())
          if (early || batch.length === FRAMES_PER_BATCH) {
            await this.#publish(batch)
            batch = []
          }
          if (early) await this.#waitUntil(dueMs)
          reachedMs = Math.max(reachedMs, dueMs)
          batch.push(frame)
        }
      }
    } finally {
      // Also publishes the frames before an invalid line. Throws if the replay was stopped.
      await this.#publish(batch)
    }
  }

  #offsetMs(recordedNs: bigint): number {
    return this.#speed === 'max' ? 0 : Number(recordedNs) / 1_000_000 / this.#speed
  }

  async #publish(batch: readonly CapturedFrame[]): Promise<void> {
    this.#stopped.signal.throwIfAborted()
    this.#streams.batch(() => {
      for (const { stream, text, data } of batch) {
        this.#streams.publish(stream, this.#history.add(text, data))
      }
    })
    await Promise.all([...this.#streams.connections].map((connection) => this.#readBy(connection)))
    await nextTurn()
    this.#stopped.signal.throwIfAborted()
  }

  /**
   * Resolves when the reader has caught up or disconnected; at once if it has little unread data.
   */
  async #readBy({
    bufferedBytes,
    socket,
  }: {
    bufferedBytes: number
    socket: NodeJS.EventEmitter
  }): Promise<void> {
    if (bufferedBytes <= UNREAD_MAX_BYTES) return
    await new Promise<void>((resolve) => {
      const done = () => {
        socket.off('drain', done).off('close', done)
        this.#stopped.signal.removeEventListener('abort', done)
        resolve()
      }
      socket.on('drain', done).on('close', done)
      this.#stopped.signal.addEventListener('abort', done)
    })
  }

  #waitUntil(dueMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        cancel()
        this.#stopped.signal.removeEventListener('abort', done)
        resolve()
      }
      const cancel = this.#clock.schedule(Math.max(0, dueMs - this.#clock.monotonicMs()), done)
      this.#stopped.signal.addEventListener('abort', done)
    })
  }
}
