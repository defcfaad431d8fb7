import { createServer, type Server } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { describeError, TapelineError } from '../errors.ts'
import type { Clock } from '../timing/clock.ts'
import type { RestApi } from './rest-api.ts'
import type { StreamServer } from './stream-server.ts'

const HOST = '127.0.0.1'
const PORT_RETRY_MS = 100
/** How long clients have to answer the closing handshake before their sockets are cut. */
const CLOSE_GRACE_MS = 500

/** A running exchange: market data as Binance's spot exchange serves it, on loopback. */
export interface Exchange {
  /** For `BINANCE_WS_URL`: the base to which `/stream?streams=` is appended. */
  readonly wsUrl: string
  /** For `BINANCE_REST_URL`. */
  readonly restUrl: string
  /** What the upgrade response says in `x-tapeline-source`. */
  readonly source: string
  /** Counts since the start; `connections` are those open now. */
  stats(): { connections: number; framesSent: number; restRequests: number }
  /** Stops listening, closes every connection, and resolves when all sockets are gone. */
  close(): Promise<void>
}

/**
 * Serves streams and REST on one port of 127.0.0.1; port 0 takes a free one.
 *
 * @param portWaitMs how long to wait for a port that is still held by an exchange that is shutting down
 * @throws {TapelineError} `ENVIRONMENT` when the port stays taken or may not be opened
 */
export async function openExchangeServer(options: {
  port: number
  portWaitMs: number
  source: string
  streams: StreamServer
  rest: RestApi
  clock: Clock
}): Promise<Exchange> {
  const { streams, rest, clock, source } = options
  let restRequests = 0
  const server = createServer((request, response) => {
    restRequests++
    const { method = 'GET', url = '/' } = request
    const nowMs = Math.floor(clock.wallMicros() / 1_000)
    const answer = rest.answer({ method, url, ip: request.socket.remoteAddress ?? '' }, nowMs)
    request.resume()
    response.writeHead(answer.status, answer.headers).end(answer.body)
  })
  server.on('upgrade', (request, _, head) => streams.upgrade(request, request.socket, head))
  const port = await listen(server, options.port, options.portWaitMs)
  return {
    wsUrl: `ws://${HOST}:${port}`,
    restUrl: `http://${HOST}:${port}`,
    source,
    stats: () => ({ connections: streams.connections.size, framesSent: streams.framesSent, restRequests }),
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      await streams.close(CLOSE_GRACE_MS)
      server.closeAllConnections()
      await closed
    },
  }
}

async function listen(server: Server, port: number, waitMs: number): Promise<number> {
  const deadline = performance.now() + waitMs
  for (;;) {
    try {
      return await listenOnce(server, port)
    } catch (error) {
      const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
      if (code === 'EADDRINUSE' && performance.now() < deadline) {
        await sleep(PORT_RETRY_MS)
        continue
      }
      const why =
        code === 'EADDRINUSE' ? 'is in use by another program' : `cannot be opened: ${describeError(error)}`
      throw new TapelineError('ENVIRONMENT', `Port ${port} on ${HOST} ${why}.`, {
        fix: 'Stop the program that holds it, or choose another port with --port (0 takes a free one).',
        cause: error,
      })
    }
  }
}

function listenOnce(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error) => {
      server.off('listening', onListening)
      reject(error)
    }
    const onListening = () => {
      server.off('error', onError)
      const address = server.address()
      if (address === null || typeof address === 'string') reject(new Error('The server has no port'))
      else resolve(address.port)
    }
    server.once('error', onError).once('listening', onListening).listen(port, HOST)
  })
}
