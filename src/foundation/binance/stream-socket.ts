import type { Socket, TcpNetConnectOpts } from 'node:net'
import { type ClientOptions, WebSocket } from 'ws'
import { describeError } from '../runtime/errors.ts'
import { outsideText } from '../runtime/outside-text.ts'
import { DirectSocketReader } from './direct-socket-reader.ts'
import { namedIn, refusedUpgrade } from './handshake.ts'
import { tunnelTo } from './proxy.ts'
import { WebSocketFrames } from './websocket-frames.ts'

/** What a connection to the combined stream tells. After `onFailed` or `onClose` nothing comes any more. */
export interface SocketEvents {
  /**
   * It is open and paused: nothing is read before `resume`.
   *
   * @param named what the exchange names itself in the upgrade; null where it does not
   */
  onOpen(named: string | null): void
  /** It could not be opened. ExchangeRefusal when the handshake was answered with an HTTP status. */
  onFailed(error: unknown): void
  onFrame(frame: Buffer): void
  onPing(): void
  /** It was open and has closed. */
  onClose(reason: string): void
}

/** One connection to the combined stream. Pings are answered by themselves. */
export interface StreamSocket {
  /** Nothing is read until `resume`. */
  pause(): void
  resume(): void
  send(text: string): void
  /** With the closing handshake, and without it a second later. */
  close(): void
  /** At once. */
  terminate(): void
}

export type OpenSocket = (url: string, events: SocketEvents) => StreamSocket

/** Binance closes a connection of larger frames' sender long before; ours are a few hundred bytes. */
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
    // `ws` hands its options on to the connection.
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
  // The default binary type: every message is one Buffer.
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
      // A paused socket would not read the answer.
      socket.resume()
      socket.close(1000)
      setTimeout(() => socket.terminate(), CLOSE_TIMEOUT_MS).unref()
    },
    terminate: () => socket.terminate(),
  }
}

/**
 * Reads the messages of an open WebSocket in place of `ws`, which still gets what is no plain message, and does all else. Were `ws`
 * to read its connection in another way than by one listener, it would read everything itself.
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
  // What a paused connection still holds when it closes, `ws` would read by itself, and not from the beginning of a frame.
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
