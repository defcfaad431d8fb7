import { createServer } from 'node:http'
import { type WebSocket, WebSocketServer } from 'ws'
import { closeServer, listen } from './loopback.ts'

/**
 * An exchange without REST for frames that the simulated one does not send.
 *
 * @param onConnection called with each connection that has streams, and its number from 1
 * @param source the name that it announces; null for none
 */
export async function startScriptedExchange(
  onConnection: (socket: WebSocket, connection: number) => void = () => {},
  source: string | null = 'scripted',
) {
  const http = createServer()
  const server = new WebSocketServer({ server: http })
  /** The connections with streams, closed ones included. */
  const sockets: WebSocket[] = []
  server.on('connection', (socket, request) => {
    // A broken socket must not end this process.
    socket.on('error', () => socket.terminate())
    // The first connection has no streams: it only checks the exchange's identity.
    if (request.url?.includes('streams=') === true) onConnection(socket, sockets.push(socket))
  })
  if (source !== null) server.on('headers', (headers) => headers.push(`x-tapeline-source: ${source}`))
  const wsUrl = `ws://127.0.0.1:${await listen(http)}`
  const urls = { BINANCE_WS_URL: wsUrl, BINANCE_REST_URL: 'http://127.0.0.1:1' }
  return {
    wsUrl,
    /** Ingestion's settings: this exchange, milliseconds, and BTCUSDT. */
    env: { ...urls, TIME_UNIT: 'millisecond', SYMBOLS: 'BTCUSDT' },
    sockets,
    async [Symbol.asyncDispose]() {
      for (const client of server.clients) client.terminate()
      await closeServer(http)
    },
  }
}

/** A frame of btcusdt@trade. @param more further members of the trade, as JSON */
export function tradeFrame(id: number, more = ''): string {
  return `{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":${id},"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true${more}}}`
}
