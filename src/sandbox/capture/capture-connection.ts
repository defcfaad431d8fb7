import { WebSocket } from 'ws'
import type { ConnectionPlan } from '../../foundation/binance/connection-plan.ts'
import type { ExchangeGate } from '../../foundation/binance/exchange-gate.ts'
import { namedIn, refusedUpgrade } from '../../foundation/binance/handshake.ts'
import { tunnelTo } from '../../foundation/binance/proxy.ts'
import { knownVenue } from '../../foundation/binance/venue.ts'
import { type BackoffPolicy, delayFor, sleep } from '../../foundation/runtime/backoff.ts'
import { describeError } from '../../foundation/runtime/errors.ts'

const MAX_FRAME_BYTES = 1 << 20
const HANDSHAKE_TIMEOUT_MS = 10_000
const CLOSE_TIMEOUT_MS = 1_000
/**
 * The exchange pings every 20 s. A connection that has missed three pings is dead, even if TCP
 * still considers it open.
 */
const SILENCE_LIMIT_MS = 60_000
/** The exchange accepts 5 messages per second, including pongs. */
const SUBSCRIBE_INTERVAL_MS = 350

export interface CaptureConnectionEvents {
  /** @param source the exchange's name; otherwise its venue or host */
  onOpen(source: string): void
  /** @returns whether the frame was market data, which proves the connection successful */
  onFrame(bytes: Buffer, isBinary: boolean): boolean
  /** The connection ended or could not be opened, and will be retried. */
  onProblem(what: string): void
}

/** A connection to the combined stream. Reconnects whenever it ends, until it is stopped. */
export class CaptureConnection {
  readonly #plan: ConnectionPlan
  readonly #backoff: BackoffPolicy
  readonly #gate: ExchangeGate
  readonly #events: CaptureConnectionEvents
  #socket: WebSocket | undefined
  #isPaused = false
  #failures = 0

  constructor(
    options: { plan: ConnectionPlan; backoff: BackoffPolicy; gate: ExchangeGate },
    events: CaptureConnectionEvents,
  ) {
    this.#plan = options.plan
    this.#backoff = options.backoff
    this.#gate = options.gate
    this.#events = events
  }

  /**
   * Stops reading from the socket until `resume`. Data then waits in the kernel, and after that at
   * the sender.
   */
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
    while (!signal.aborted) {
      try {
        await this.#gate.wait('handshakes', signal)
        const reason = await this.#connectUntilClosed(signal)
        if (!signal.aborted) this.#events.onProblem(`Connection closed: ${reason}`)
      } catch (error) {
        if (signal.aborted) return
        if (!this.#gate.failed('handshakes', error))
          this.#events.onProblem(`Cannot connect: ${describeError(error)}`)
      }
      this.#failures++
      // The wait ends early when the capture is stopped.
      await sleep(delayFor(this.#failures, this.#backoff, Math.random()), signal).catch(() => undefined)
    }
  }

  /** Resolves with the reason when an open connection has closed; rejects when it never opened. */
  async #connectUntilClosed(signal: AbortSignal): Promise<string> {
    signal.throwIfAborted()
    const socket = new WebSocket(this.#plan.url, {
      perMessageDeflate: false,
      maxPayload: MAX_FRAME_BYTES,
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      agent: tunnelTo(this.#plan.url),
    })
    this.#socket = socket
    const ended = new AbortController()
    const { promise, resolve, reject } = Promise.withResolvers<string>()
    let problem: string | undefined
    socket.on('error', (error) => {
      problem = describeError(error)
      reject(error)
    })
    socket.once('unexpected-response', (request, response) => {
      request.destroy()
      reject(refusedUpgrade(this.#plan.url, response))
    })
    socket.once('upgrade', (response) => {
      const { url } = this.#plan
      this.#gate.served('handshakes')
      this.#events.onOpen(namedIn(response) ?? knownVenue(url) ?? new URL(url).host)
    })
    socket.once('open', () => {
      if (this.#isPaused) socket.pause()
      this.#watch(socket, ended.signal)
      void this.#subscribe(socket, ended.signal)
    })
    socket.on('message', (bytes: Buffer, isBinary) => {
      if (this.#events.onFrame(bytes, isBinary)) this.#failures = 0
    })
    const closed = new Promise<void>((done) => {
      socket.once('close', (code, reason) => {
        resolve(problem ?? `${code} ${reason.toString()}`.trim())
        done()
      })
    })
    const stop = () => closePolitely(socket)
    signal.addEventListener('abort', stop, { once: true })
    try {
      return await promise
    } finally {
      signal.removeEventListener('abort', stop)
      ended.abort()
      if (!signal.aborted) socket.terminate()
      await closed
      this.#socket = undefined
    }
  }

  /** Ends a connection that has been silent for too long, unless we have paused it. */
  #watch(socket: WebSocket, signal: AbortSignal): void {
    let heardAtMs = performance.now()
    const heard = () => {
      heardAtMs = performance.now()
    }
    socket.on('message', heard).on('ping', heard)
    const timer = setInterval(() => {
      if (this.#isPaused) heard()
      if (performance.now() - heardAtMs > SILENCE_LIMIT_MS) socket.terminate()
    }, 1_000)
    signal.addEventListener('abort', () => clearInterval(timer), { once: true })
  }

  /** Subscribes to the streams that did not fit in the URL. */
  async #subscribe(socket: WebSocket, signal: AbortSignal): Promise<void> {
    for (const [index, params] of this.#plan.subscriptions.entries()) {
      // Rejects when the connection has ended. The next one subscribes again.
      await sleep(SUBSCRIBE_INTERVAL_MS, signal).catch(() => undefined)
      if (signal.aborted) return
      socket.send(JSON.stringify({ method: 'SUBSCRIBE', params, id: index + 1 }))
    }
  }
}

function closePolitely(socket: WebSocket): void {
  // Frames in flight are discarded, but the closing handshake must be read.
  socket.removeAllListeners('message')
  socket.resume()
  socket.close(1000)
  const timer = setTimeout(() => socket.terminate(), CLOSE_TIMEOUT_MS)
  socket.once('close', () => clearTimeout(timer))
}
