import { addAbortListener } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import { parseTimeUnit, type TimeUnit } from '../market/time-unit.ts'
import { describeError } from '../runtime/errors.ts'
import { outsideText } from '../runtime/outside-text.ts'
import { byProxy, tunnelTo } from './proxy.ts'
import { ExchangeRefusal, refusalOf } from './refusal.ts'

/** The header in which our simulated exchanges announce their name, also in REST answers. */
export const EXCHANGE_IDENTITY_HEADER = 'x-tapeline-source'

/** The header in which a replay announces the time unit of its capture, which it cannot change. */
const TIME_UNIT_HEADER = 'x-tapeline-time-unit'

/** The identity that an exchange announces in its answers. */
export interface ExchangeAnswer {
  /** Null if it announces no name, like Binance. */
  readonly named: string | null
  /** Null if it uses the unit that the client requests. */
  readonly timeUnit: TimeUnit | null
}

/** Callbacks of a connection to the combined stream. Nothing follows `onFailed` or `onClose`. */
export interface SocketEvents {
  /** The socket is open and paused: nothing is read before `resume`. */
  onOpen(answer: ExchangeAnswer): void
  /** The connection did not open: an ExchangeRefusal if an HTTP status answered the handshake. */
  onFailed(error: unknown): void
  onFrame(frame: Buffer, isBinary?: boolean): void
  onPing(): void
  onClose(reason: string): void
}

/** One connection to the combined stream. The library answers pings. */
export interface StreamSocket {
  pause(): void
  resume(): void
  send(text: string): void
  /** Closes with the closing handshake, or without it after a second. */
  close(): void
  terminate(): void
}

export type OpenSocket = (url: string, events: SocketEvents) => StreamSocket

/** Far above the exchange's frames, which have a few hundred bytes. */
const MAX_FRAME_BYTES = 1 << 20
const HANDSHAKE_TIMEOUT_MS = 10_000
const CLOSE_TIMEOUT_MS = 1000

/** The exchange sends a ping every 20 s. After three missed ones the connection is dead. */
export const SILENCE_LIMIT_MS = 60_000

export const openSocket: OpenSocket = (url, events) => {
  const abandoned = new AbortController()
  const socket = new WebSocket(url, {
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    // Such a frame is rejected alone; the library would close the connection.
    skipUTF8Validation: true,
    agent: tunnelTo(url, abandoned.signal),
  })
  let answer: ExchangeAnswer = { named: null, timeUnit: null }
  let isOpen = false
  let problem: unknown = null
  const terminate = () => {
    socket.terminate()
    abandoned.abort()
  }
  // The limit of the library begins with the connection to the exchange: after a proxy has answered.
  const limit = setTimeout(() => {
    const { host } = new URL(url)
    const late = `${host} has not answered the WebSocket handshake within ${HANDSHAKE_TIMEOUT_MS / 1000} s`
    problem ??= new Error(`${late}${byProxy(url)}`)
    events.onFailed(problem)
    terminate()
  }, HANDSHAKE_TIMEOUT_MS)
  socket.once('upgrade', ({ headers }) => {
    const timeUnit = parseTimeUnit(headers[TIME_UNIT_HEADER]?.toString())
    answer = { named: headers[EXCHANGE_IDENTITY_HEADER]?.toString() ?? null, timeUnit }
  })
  socket.once('unexpected-response', (request, response) => {
    clearTimeout(limit)
    problem = refusedUpgrade(url, response)
    request.destroy()
    events.onFailed(problem)
  })
  socket.once('open', () => {
    clearTimeout(limit)
    isOpen = true
    socket.pause()
    events.onOpen(answer)
  })
  socket.on('error', (error) => {
    clearTimeout(limit)
    const first = problem === null
    problem ??= error
    if (!isOpen && first) events.onFailed(error)
  })
  socket.on('ping', () => events.onPing())
  // With the default binary type, each message is one Buffer.
  socket.on('message', (frame: Buffer, isBinary) => events.onFrame(frame, isBinary))
  socket.once('close', (code, reason) => {
    if (isOpen)
      events.onClose(problem === null ? outsideText(`${code} ${reason.toString()}`) : describeError(problem))
  })
  return {
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    send: (text) => socket.send(text),
    close() {
      // A paused socket would not read the closing answer.
      socket.resume()
      socket.close(1000)
      setTimeout(terminate, CLOSE_TIMEOUT_MS).unref()
    },
    terminate,
  }
}

function refusedUpgrade(url: string, { statusCode = 0, headers }: IncomingMessage): ExchangeRefusal {
  const refusal = refusalOf(statusCode, headers['retry-after'] ?? null, '', Date.now())
  return new ExchangeRefusal(`${new URL(url).host} refused the WebSocket handshake${byProxy(url)}`, refusal)
}

/** Asks which exchange this is. @throws ExchangeRefusal if it refuses; other errors without a connection */
export async function askExchange(baseUrl: string, signal: AbortSignal): Promise<ExchangeAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<ExchangeAnswer>()
  using _ = addAbortListener(signal, () => reject(signal.reason))
  const ignore = () => {}
  const ignored = { onFrame: ignore, onPing: ignore, onClose: ignore }
  const socket = openSocket(`${baseUrl}/stream`, { ...ignored, onOpen: resolve, onFailed: reject })
  try {
    return await promise
  } finally {
    socket.terminate()
  }
}
