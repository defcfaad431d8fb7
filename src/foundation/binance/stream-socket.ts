import type { Socket, TcpNetConnectOpts } from 'node:net'
import { type ClientOptions, WebSocket } from 'ws'
import { describeError } from '../runtime/errors.ts'
import { outsideText } from '../runtime/outside-text.ts'
import { DirectSocketReader } from './direct-socket-reader.ts'
import { namedIn, refusedUpgrade } from './handshake.ts'
import { tunnelTo } from './proxy.ts'
import { WebSocketFrames } from './websocket-frames.ts'

/** Callbacks of a connection to the combined stream. Nothing follows `onFailed` or `onClose`. */
export interface SocketEvents {
  /**
   * Called when the socket is open and paused: nothing is read before `resume`.
   *
   * @param named the name that the exchange announces in the upgrade; null for none
   */
  onOpen(named: string | null): void
  /**
   * Called when the connection failed to open; with an ExchangeRefusal if an HTTP status answered
   * the handshake.
   */
  onFailed(error: unknown): void
  onFrame(frame: Buffer): void
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

/** Opens a WebSocket. */
export const openSocket: OpenSocket = (url, events) => {
  const reading = new DirectSocketReader()
  const options: ClientOptions & Pick<TcpNetConnectOpts, 'onread'> = {
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    // `ws` passes its options to the connection.
    onread: reading.options,
    agent: tunnelTo(url),
  }
  const socket = new WebSocket(url, options)
  let named: string | null = null
  let connection: Socket | null = null
  let isOpen = false
  let problem: unknown = null
  socket.once('upgrade', (response) => {
    named = namedIn(response)
    connection = response.socket
  })
  socket.once('unexpected-response', (request, response) => {
    problem = refusedUpgrade(url, response)
    request.destroy()
    events.onFailed(problem)
  })
  socket.once('open', () => {
    isOpen = true
    socket.pause()
    if (connection !== null) readPlainFrames(connection, reading, events.onFrame)
    events.onOpen(named)
  })
  socket.on('error', (error) => {
    const first = problem === null
    problem ??= error
    if (!isOpen && first) events.onFailed(error)
  })
  socket.on('ping', () => events.onPing())
  // With the default binary type, each message is one Buffer.
  socket.on('message', (frame: Buffer) => events.onFrame(frame))
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

/**
 * Reads the plain messages of an open WebSocket in place of `ws`, which still handles everything
 * else. If `ws` does not read through exactly one listener, it reads everything.
 */
function readPlainFrames(
  connection: Socket,
  reading: DirectSocketReader,
  onText: (text: Buffer) => void,
): void {
  const [reader, ...others] = connection.listeners('data')
  if (!isListener(reader) || others.length > 0) return
  const toReader = (bytes: Buffer) => reader.call(connection, bytes)
  const frames = new WebSocketFrames({
    onText,
    onControl: toReader,
    onOther(bytes) {
      reading.end()
      connection.on('data', reader)
      connection.off('data', push)
      connection.off('close', pushLast)
      toReader(bytes)
    },
  })
  const push = (chunk: Buffer) => frames.push(chunk)
  // On close, `ws` would read what a paused connection still holds, starting in the middle of a
  // frame.
  const pushLast = () => {
    const last: unknown = connection.read()
    if (last instanceof Buffer) push(last)
  }
  connection.on('data', push)
  connection.off('data', reader)
  connection.prependListener('close', pushLast)
  reading.begin(push)
}

function isListener(value: unknown): value is (this: Socket, bytes: Buffer) => void {
  return typeof value === 'function'
}
