import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { EXCHANGE_IDENTITY_HEADER } from '../../foundation/binance/handshake.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { faultApi } from './faults/fault-api.ts'
import { FaultyHistory } from './faults/fault-history.ts'
import { type ExchangeFaults, FaultInjector, type MarketControl } from './faults/fault-injector.ts'
import type { ExchangeTruth, MarketPast } from './market/trade-history.ts'
import { HOST, PortGate } from './server/port-gate.ts'
import { type RestAnswer, RestApi } from './server/rest-api.ts'
import type { RestLimits } from './server/rest-weights.ts'
import type { ConnectionReport } from './server/stream-connection.ts'
import type { StreamServer } from './server/stream-server.ts'

/** Time for clients to answer the closing handshake before their sockets are destroyed. */
const CLOSE_GRACE_MS = 500

/** A running exchange on loopback that serves market data like Binance's spot exchange. */
export interface Exchange {
  /** For `BINANCE_WS_URL`: the base to which `/stream?streams=` is appended. */
  readonly wsUrl: string
  /** For `BINANCE_REST_URL`. */
  readonly restUrl: string
  /** The value of `x-tapeline-source` in the upgrade and in REST answers. */
  readonly source: string
  /** Controls the faults. */
  readonly faults: ExchangeFaults
  /** The true market, for comparison with the stored data. */
  readonly history: ExchangeTruth
  /** Open WebSocket connections, oldest first. */
  connections(): readonly ConnectionReport[]
  /** Counts since start, except `connections`, which are those open now. */
  stats(): { connections: number; framesSent: number; restRequests: number }
  /** Stops listening, closes every connection, and resolves when all sockets are gone. */
  close(): Promise<void>
}

/**
 * Serves streams and REST on one port of 127.0.0.1; port 0 means any free port.
 *
 * @param portWaitMs how long to wait for the port while a previous exchange shuts down
 * @param faultApi whether `/faults` controls faults over HTTP
 * @throws {TapelineError} `ENVIRONMENT` when the port stays taken or may not be opened
 */
export async function openExchangeServer(options: {
  port: number
  portWaitMs: number
  source: string
  ownTimeUnit: TimeUnit | null
  streams: StreamServer
  past: MarketPast
  market?: MarketControl
  restLimits: RestLimits
  clock: Clock
  faultSeed: number
  faultApi: boolean
}): Promise<Exchange> {
  const { streams, past, clock, source } = options
  const server = createServer()
  const door = new PortGate(server, options.port, options.portWaitMs)
  const faults = new FaultInjector({
    streams,
    door,
    past,
    market: options.market,
    clock,
    seed: options.faultSeed,
  })
  const rest = new RestApi(new FaultyHistory(past, faults.book), options.restLimits, options.ownTimeUnit)
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
  const control = options.faultApi ? faultApi({ faults, history, connections }) : undefined
  let restRequests = 0
  server.on('request', (request, response) => {
    if (control?.(request, response)) return
    restRequests++
    request.resume()
    const { method = 'GET', url = '/' } = request
    const timeUnit = request.headers['x-mbx-time-unit']?.toString()
    const usual = () => {
      const nowMs = Math.floor(clock.wallMicros() / 1_000)
      return rest.answer({ method, url, ip: request.socket.remoteAddress ?? '', timeUnit }, nowMs)
    }
    const fate = faults.request(url)
    if (fate === undefined) {
      send(response, usual(), source)
      return
    }
    const act = () => {
      if (fate.answer === 'reset') request.socket.resetAndDestroy()
      else send(response, fate.answer === 'as usual' ? usual() : fate.answer, source)
    }
    if (fate.delayMs === 0) act()
    else response.once('close', clock.schedule(fate.delayMs, act))
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
    connections,
    stats: () => ({ connections: streams.connections.size, framesSent: streams.framesSent, restRequests }),
    async close() {
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
