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
/** The exchange pings every 20 s: a connection that has missed three is dead whatever TCP thinks. */
const SILENCE_LIMIT_MS = 60_000
/** The exchange takes 5 messages a second, pongs included. */
const SUBSCRIBE_INTERVAL_MS = 350

export interface CaptureConnectionEvents {
  /** @param source what the exchange names itself; otherwise its venue, or its host */
  onOpen(source: string): void
  /** @returns true when it was market data, which is what makes a connection a successful one */
  onFrame(bytes: Buffer, isBinary: boolean): boolean
  /** It has ended or could not be opened, and is tried again. */
  onProblem(what: string): void
}

/** One connection to the combined stream, opened again whenever it ends, until it is stopped. */
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

  /** Nothing is read from the socket until `resume`; what comes meanwhile waits in the kernel, and then there. */
  pause(): void {
    this.#isPaused = true
    this.#socket?.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#socket?.resume()
  }

  /** Resolves when `signal` has aborted and the socket is gone. */
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
      // The wait ends early when the capture does.
      await sleep(delayFor(this.#failures, this.#backoff, Math.random()), signal).catch(() => undefined)
    }
  }

  /** Resolves with the reason once a connection that was open has closed; rejects when it never opened. */
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

  /** Ends a connection on which nothing has come for too long; one that we have paused ourselves is not silent. */
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

  /** Streams that had no place in the URL. */
  async #subscribe(socket: WebSocket, signal: AbortSignal): Promise<void> {
    for (const [index, params] of this.#plan.subscriptions.entries()) {
      // The connection has ended; the next one subscribes anew.
      await sleep(SUBSCRIBE_INTERVAL_MS, signal).catch(() => undefined)
      if (signal.aborted) return
      socket.send(JSON.stringify({ method: 'SUBSCRIBE', params, id: index + 1 }))
    }
  }
}

function closePolitely(socket: WebSocket): void {
  // Frames in flight are no longer wanted, but the closing handshake has to come through.
  socket.removeAllListeners('message')
  socket.resume()
  socket.close(1000)
  const timer = setTimeout(() => socket.terminate(), CLOSE_TIMEOUT_MS)
  socket.once('close', () => clearTimeout(timer))
}
