import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { EXCHANGE_IDENTITY_HEADER } from '../../foundation/binance/stream-socket.ts'
import { type Clock, wallMs } from '../../foundation/runtime/clock.ts'
import { faultApi } from './faults/fault-api.ts'
import { FaultyHistory } from './faults/fault-history.ts'
import { FaultInjector, type SetTrading } from './faults/fault-injector.ts'
import { requestFate } from './faults/fault-rest.ts'
import type { BookHistory } from './market/book-history.ts'
import type { ExchangeTruth, MarketPast } from './market/trade-history.ts'
import { HOST, PortGate } from './server/port-gate.ts'
import { type RestAnswer, RestApi } from './server/rest-api.ts'
import type { RestLimits } from './server/rest-weights.ts'
import type { ConnectionReport, StreamLimits } from './server/stream-connection.ts'
import type { StreamServer } from './server/stream-server.ts'

/** Time for clients to answer the closing handshake before their sockets are destroyed. */
const CLOSE_GRACE_MS = 500

/** What a simulation and a replay accept. */
export interface ExchangeOptions {
  /** 0 (the default) means any free port. */
  readonly port?: number
  /** How long to wait for the port while a previous exchange shuts down. Default: 5,000. */
  readonly portWaitMs?: number
  readonly limits?: Partial<StreamLimits>
  readonly restLimits?: Partial<RestLimits>
  readonly clock?: Clock
  /** Whether `/faults` is served, in addition to the exchange's API. */
  readonly faultApi?: boolean
}

/** A running exchange on loopback that serves market data like Binance's spot exchange. */
export interface Exchange {
  /** For `BINANCE_WS_URL`: the base to which `/stream?streams=` is appended. */
  readonly wsUrl: string
  readonly restUrl: string
  /** The value of `x-tapeline-source` in the upgrade and in REST answers. */
  readonly source: string
  readonly faults: Pick<FaultInjector, 'add' | 'list' | 'clear' | 'struck'>
  /** The true market, for comparison with the stored data. */
  readonly history: ExchangeTruth
  /** The true order books, as the matching engine had them; null in a replay of a capture without a snapshot. */
  readonly books: BookHistory | null
  connections(): readonly ConnectionReport[]
  /** Counts since start, except `connections`, which are those open now. */
  stats(): { connections: number; framesSent: number; restRequests: number }
  /** Stops listening, closes every connection, and resolves when all sockets are gone. */
  close(): Promise<void>
}

/**
 * Serves streams and REST on one port of 127.0.0.1.
 * @param served what the exchange serves. `setTrading` is undefined in a replay; `stop` ends what
 *   feeds the streams, at the beginning of `close`.
 * @throws {TapelineError} `ENVIRONMENT` when the port stays taken or may not be opened
 */
export async function openExchangeServer(
  options: ExchangeOptions,
  served: {
    streams: StreamServer
    past: MarketPast
    books: BookHistory | null
    faultSeed: number
    setTrading?: SetTrading
    stop?: () => void
  },
): Promise<Exchange> {
  const { streams, past, books, faultSeed: seed, setTrading } = served
  const { source, ownTimeUnit, clock } = streams
  const server = createServer()
  const door = new PortGate(server, options.port ?? 0, options.portWaitMs ?? 5_000)
  const faults = new FaultInjector({ streams, door, past, setTrading, seed })
  const shown = new FaultyHistory(past, faults.book)
  const shownBooks = books && ((symbol: string, levels: number) => shown.book(books, symbol, levels))
  const rest = new RestApi(shown, options.restLimits, ownTimeUnit, shownBooks)
  const history: ExchangeTruth = {
    symbols: past.symbols,
    events: (type, symbol, fromId, toId, epoch) => {
      const limit = Math.max(0, toId - fromId + 1)
      const events = past.events(type, symbol, { fromId, limit, epoch })
      return events.filter(({ id }) => id <= toId)
    },
    epochCount: (symbol, type) => past.epochCount(symbol, type),
  }
  const connections = () => [...streams.connections].map((connection) => connection.report())
  const control = options.faultApi ? faultApi({ faults, history, books, connections }) : undefined
  let restRequests = 0
  server.on('request', (request, response) => {
    if (control?.(request, response)) return
    restRequests++
    request.resume()
    const { method = 'GET', url = '/' } = request
    const timeUnit = request.headers['x-mbx-time-unit']?.toString()
    const { delayMs, answer } = requestFate(url, faults.book)
    const act = () => {
      if (answer === 'reset') request.socket.resetAndDestroy()
      else if (answer !== 'as usual') send(response, answer, source)
      else {
        const ip = request.socket.remoteAddress ?? ''
        send(response, rest.answer({ method, url, ip, timeUnit }, wallMs(clock)), source)
      }
    }
    if (delayMs === 0) act()
    else response.once('close', clock.schedule(delayMs, act))
  })
  server.on('upgrade', (request: IncomingMessage, _, head: Buffer) =>
    streams.upgrade(request, request.socket, head),
  )
  await door.open()
  return {
    wsUrl: `ws://${HOST}:${door.port}`,
    restUrl: `http://${HOST}:${door.port}`,
    source,
    faults,
    history,
    books,
    connections,
    stats: () => ({ connections: streams.connections.size, framesSent: streams.framesSent, restRequests }),
    async close() {
      served.stop?.()
      faults.close()
      const closed = door.close()
      await streams.close(CLOSE_GRACE_MS)
      server.closeAllConnections()
      await closed
    },
  }
}

function send(response: ServerResponse, { status, headers, body }: RestAnswer, source: string): void {
  response.writeHead(status, { ...headers, [EXCHANGE_IDENTITY_HEADER]: source }).end(body)
}
