import { WebSocket } from 'ws'
import { describeError } from '../runtime/errors.ts'
import { outsideText } from '../runtime/outside-text.ts'
import { namedIn, refusedUpgrade } from './handshake.ts'
import { tunnelTo } from './proxy.ts'

/** Callbacks of a connection to the combined stream. Nothing follows `onFailed` or `onClose`. */
export interface SocketEvents {
  /** The socket is open and paused: nothing is read before `resume`. @param named announced; null for none */
  onOpen(named: string | null): void
  /** The connection did not open: an ExchangeRefusal if an HTTP status answered the handshake. */
  onFailed(error: unknown): void
  onFrame(frame: Buffer, isBinary?: boolean): void
  onPing(): void
  /** Called when the open connection has closed. */
  onClose(reason: string): void
}

/** One connection to the combined stream. The library answers pings. */
export interface StreamSocket {
  /** Stops reading until `resume`. */
  pause(): void
  resume(): void
  send(text: string): void
  /** Closes with the closing handshake, or without it after a second. */
  close(): void
  /** Closes at once. */
  terminate(): void
}

export type OpenSocket = (url: string, events: SocketEvents) => StreamSocket

/** Far above the exchange's frames, which have a few hundred bytes. */
const MAX_FRAME_BYTES = 1 << 20
const HANDSHAKE_TIMEOUT_MS = 10_000
const CLOSE_TIMEOUT_MS = 1000

/** The exchange sends a ping every 20 s. After three missed ones the connection is dead. */
export const SILENCE_LIMIT_MS = 60_000

/** Opens a WebSocket. */
export const openSocket: OpenSocket = (url, events) => {
  const socket = new WebSocket(url, {
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    agent: tunnelTo(url),
  })
  let named: string | null = null
  let isOpen = false
  let problem: unknown = null
  socket.once('upgrade', (response) => {
    named = namedIn(response)
  })
  socket.once('unexpected-response', (request, response) => {
    problem = refusedUpgrade(url, response)
    request.destroy()
    events.onFailed(problem)
  })
  socket.once('open', () => {
    isOpen = true
    socket.pause()
    events.onOpen(named)
  })
  socket.on('error', (error) => {
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
      setTimeout(() => socket.terminate(), CLOSE_TIMEOUT_MS).unref()
    },
    terminate: () => socket.terminate(),
  }
}
