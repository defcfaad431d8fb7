import { createHash } from 'node:crypto'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import type { Duplex } from 'node:stream'
import { openSocket, type StreamSocket } from '../../src/foundation/binance/stream-socket.ts'
import { closeServer, listen } from './loopback.ts'

export const [TEXT, PING, PONG] = [0x01, 0x09, 0x0a]
export const FIN = 0x80

/** A frame as a server writes it, with the shortest encoding of its length. */
export function frame(first: number, payload: Buffer): Buffer {
  const { length } = payload
  if (length < 126) return Buffer.concat([Buffer.of(first, length), payload])
  const isShort = length < 65_536
  const head = Buffer.alloc(isShort ? 4 : 10)
  head[0] = first
  head[1] = isShort ? 126 : 127
  if (isShort) head.writeUInt16BE(length, 2)
  else head.writeBigUInt64BE(BigInt(length), 2)
  return Buffer.concat([head, payload])
}

export const text = (value: string) => frame(FIN | TEXT, Buffer.from(value))

/** A server that accepts every upgrade, and leaves the bytes of the connection to the test. */
export async function rawServer(tls: { readonly cert: Buffer; readonly key: Buffer } | null = null) {
  const connections: Duplex[] = []
  const server = tls === null ? createServer() : createSecureServer(tls)
  server.on('upgrade', (request, socket) => {
    const accept = createHash('sha1')
      .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64')
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    )
    socket.on('error', () => {})
    connections.push(socket)
  })
  return {
    url: `${tls === null ? 'ws' : 'wss'}://127.0.0.1:${await listen(server)}`,
    connections,
    [Symbol.asyncDispose]: () => closeServer(server, connections),
  }
}

/** Reads with `openSocket`, from the opening on. */
export function readByUs(
  url: string,
  onMessage: (socket: StreamSocket, count: number) => void = () => {},
): { readonly events: string[]; closed: string | null; readonly socket: StreamSocket } {
  const events: string[] = []
  const socket = openSocket(url, {
    onOpen: () => socket.resume(),
    onFailed: (error) => events.push(String(error)),
    onFrame: (data) => onMessage(socket, events.push(data.toString())),
    onPing: () => events.push('a ping'),
    onClose: (reason) => {
      seen.closed = reason
    },
  })
  const seen: ReturnType<typeof readByUs> = { events, socket, closed: null }
  return seen
}
