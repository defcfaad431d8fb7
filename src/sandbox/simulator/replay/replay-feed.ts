import { setImmediate as nextTurn } from 'node:timers/promises'
import { sleep } from '../../../foundation/runtime/backoff.ts'
import type { StreamConnection } from '../server/stream-connection.ts'
import type { StreamServer, SubscriptionListener } from '../server/stream-server.ts'
import { captureLines } from './capture-file.ts'
import { type CaptureContent, type CapturedFrame, framesOf } from './capture-frames.ts'
import type { ReplayBooks } from './replay-books.ts'
import type { ReplayHistory } from './replay-history.ts'

/** Multiple of the original speed; `max`: as fast as the readers accept it. */
export type ReplaySpeed = number | 'max'

/** Maximum number of frames per batch. Between batches, client messages are processed. */
const FRAMES_PER_BATCH = 256
/** The replay pauses while a reader has more unread bytes. */
const UNREAD_MAX_BYTES = 1_048_576

interface ReplayFeedOptions {
  readonly path: string
  readonly content: CaptureContent
  readonly streams: StreamServer
  readonly history: ReplayHistory
  readonly books: ReplayBooks | null
  readonly speed: ReplaySpeed
}

/**
 * Plays a capture. Its clock starts with the first subscription to one of its streams. A frame goes
 * to those subscribed at that moment. Slow readers delay the replay instead of losing frames.
 */
export class ReplayFeed implements SubscriptionListener {
  /** Resolves after the last frame. Rejects when the file is invalid or the replay stopped. */
  readonly finished: Promise<void>
  readonly #options: ReplayFeedOptions
  readonly #stopped = new AbortController()
  readonly #start: () => void

  constructor(options: ReplayFeedOptions) {
    this.#options = options
    const { promise: started, resolve } = Promise.withResolvers<void>()
    this.#start = resolve
    this.finished = this.#play(started)
    // Callers that await it see the rejection. Without one, it must not end the process.
    this.finished.catch(() => undefined)
    options.streams.listen(this)
  }

  streamOpened(stream: string): void {
    if (this.#options.content.streams.has(stream)) this.#start()
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
    const { path, streams, speed } = this.#options
    const { clock } = streams
    const startedMs = clock.monotonicMs()
    let firstNs: bigint | undefined
    let batch: CapturedFrame[] = []
    // A timer may fire slightly early. Frames of one instant must still be sent together.
    let reachedMs = startedMs
    try {
      for await (const lines of captureLines(path)) {
        for (const frame of framesOf(path, lines)) {
          firstNs ??= frame.receivedNs
          const offsetMs = speed === 'max' ? 0 : Number(frame.receivedNs - firstNs) / 1_000_000 / speed
          const dueMs = startedMs + offsetMs
          const early = dueMs > Math.max(reachedMs, clock.monotonicMs())
          if (early || batch.length === FRAMES_PER_BATCH) {
            await this.#publish(batch)
            batch = []
          }
          if (early) await sleep(Math.max(0, dueMs - clock.monotonicMs()), this.#stopped.signal, clock)
          reachedMs = Math.max(reachedMs, dueMs)
          batch.push(frame)
        }
      }
    } finally {
      // Also publishes the frames before an invalid line. Throws if the replay was stopped.
      await this.#publish(batch)
    }
  }

  async #publish(batch: readonly CapturedFrame[]): Promise<void> {
    const { streams, history, books } = this.#options
    this.#stopped.signal.throwIfAborted()
    streams.batch(() => {
      for (const { stream, text, data } of batch) {
        books?.add(data)
        streams.publish(stream, history.add(text, data))
      }
    })
    await Promise.all([...streams.connections].map((connection) => this.#readBy(connection)))
    await nextTurn()
    this.#stopped.signal.throwIfAborted()
  }

  /** Resolves when the reader has little unread data or has disconnected. */
  async #readBy({ bufferedBytes, socket }: StreamConnection): Promise<void> {
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
}
