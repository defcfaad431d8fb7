import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import type { Duplex } from 'node:stream'
import { openSocket, type StreamSocket } from '../../src/foundation/binance/stream-socket.ts'

export const [TEXT, PING, PONG] = [0x01, 0x09, 0x0a]
export const FIN = 0x80

/** A frame as a server writes it, with the shortest encoding of its length. */
export function frame(first: number, payload: Buffer): Buffer {
  const { length } = payload
  const head =
    length < 126
      ? [first, length]
      : length < 65_536
        ? [first, 126, length >> 8, length & 0xff]
        : [
            first,
            127,
            0,
            0,
            0,
            0,
            length >>> 24,
            (length >>> 16) & 0xff,
            (length >>> 8) & 0xff,
            length & 0xff,
          ]
  return Buffer.concat([Buffer.from(head), payload])
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
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The server has no port')
  return {
    url: `${tls === null ? 'ws' : 'wss'}://127.0.0.1:${address.port}`,
    connections,
    async [Symbol.asyncDispose]() {
      for (const connection of connections) connection.destroy()
      server.close()
      await once(server, 'close')
    },
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
