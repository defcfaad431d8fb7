import { addAbortListener } from 'node:events'
import type { ConnectionPlan } from '../../foundation/binance/connection-plan.ts'
import type { ExchangeGate } from '../../foundation/binance/exchange-gate.ts'
import { openSocket, SILENCE_LIMIT_MS, type StreamSocket } from '../../foundation/binance/stream-socket.ts'
import { knownVenue } from '../../foundation/binance/venue.ts'
import { type BackoffPolicy, delayFor, sleep } from '../../foundation/runtime/backoff.ts'
import { describeError } from '../../foundation/runtime/errors.ts'

/** The exchange accepts 5 messages per second, including pongs. */
const SUBSCRIBE_INTERVAL_MS = 350

export interface CaptureConnectionOptions {
  readonly plan: ConnectionPlan
  readonly backoff: BackoffPolicy
  readonly gate: ExchangeGate
  /** @param source the exchange's name; otherwise its venue or host */
  onOpen(source: string): void
  /** @returns whether the frame was market data, which proves the connection successful */
  onFrame(bytes: Buffer, isBinary: boolean): boolean
  /** The connection ended or could not be opened, and will be retried. */
  onProblem(what: string): void
}

/** A connection to the combined stream that reconnects whenever it ends, until it is stopped. */
export class CaptureConnection {
  readonly #options: CaptureConnectionOptions
  #socket: StreamSocket | undefined
  #isPaused = false
  #failures = 0

  constructor(options: CaptureConnectionOptions) {
    this.#options = options
  }

  /** Stops reading until `resume`. Data then waits in the kernel, and after that at the sender. */
  pause(): void {
    this.#isPaused = true
    this.#socket?.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#socket?.resume()
  }

  /** Resolves when `signal` has aborted and the socket is closed. */
  async run(signal: AbortSignal): Promise<void> {
    const { backoff, gate, onProblem } = this.#options
    while (!signal.aborted) {
      try {
        await gate.wait('handshakes', signal)
        const reason = await this.#connectUntilClosed(signal)
        if (!signal.aborted) onProblem(`Connection closed: ${reason}`)
      } catch (error) {
        if (signal.aborted) return
        if (!gate.failed('handshakes', error)) onProblem(`Cannot connect: ${describeError(error)}`)
      }
      this.#failures++
      // The wait ends early when the capture is stopped.
      await sleep(delayFor(this.#failures, backoff, Math.random()), signal).catch(() => undefined)
    }
  }

  /** Resolves with the reason when an open connection has closed; rejects when it never opened. */
  async #connectUntilClosed(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    const { plan, gate, onOpen, onFrame } = this.#options
    const { url } = plan
    const ended = new AbortController()
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    let heardAtMs = 0
    const socket = openSocket(url, {
      onOpen: ({ named }) => {
        gate.served('handshakes')
        onOpen(named ?? knownVenue(url) ?? new URL(url).host)
        if (!this.#isPaused) socket.resume()
        heardAtMs = performance.now()
        void this.#subscribe(socket, ended.signal)
      },
      onFailed: reject,
      onFrame: (bytes, isBinary = false) => {
        heardAtMs = performance.now()
        // Frames that arrive during the closing handshake are discarded.
        if (!signal.aborted && onFrame(bytes, isBinary)) this.#failures = 0
      },
      onPing: () => {
        heardAtMs = performance.now()
      },
      onClose: resolve,
    })
    this.#socket = socket
    const watch = setInterval(() => {
      // A pause of ours is no silence.
      if (this.#isPaused || heardAtMs === 0) heardAtMs = performance.now()
      if (performance.now() - heardAtMs > SILENCE_LIMIT_MS) socket.terminate()
    }, 1_000)
    using _ = addAbortListener(signal, () => socket.close())
    try {
      return await promise
    } finally {
      ended.abort()
      clearInterval(watch)
      this.#socket = undefined
    }
  }

  /** Subscribes to the streams that did not fit in the URL. */
  async #subscribe(socket: StreamSocket, signal: AbortSignal): Promise<void> {
    for (const [index, params] of this.#options.plan.subscriptions.entries()) {
      // Rejects when the connection has ended. The next one subscribes again.
      await sleep(SUBSCRIBE_INTERVAL_MS, signal).catch(() => undefined)
      if (signal.aborted) return
      socket.send(JSON.stringify({ method: 'SUBSCRIBE', params, id: index + 1 }))
    }
  }
}
