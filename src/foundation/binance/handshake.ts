import type { IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import { parseTimeUnit, type TimeUnit } from '../market/time-unit.ts'
import { byProxy, tunnelTo } from './proxy.ts'
import { ExchangeRefusal, refusalOf } from './refusal.ts'

/** The header in which our simulated exchanges announce their name, also in REST answers. */
export const EXCHANGE_IDENTITY_HEADER = 'x-tapeline-source'

/** The header in which a replay announces the time unit of its capture, which it cannot change. */
const TIME_UNIT_HEADER = 'x-tapeline-time-unit'

const HANDSHAKE_TIMEOUT_MS = 10_000

/** The identity that an exchange announces in its answers. */
export interface ExchangeAnswer {
  /** Null if it announces no name. */
  readonly named: string | null
  /** Null if it uses the unit that the client requests. */
  readonly timeUnit: TimeUnit | null
}

/** Returns the name that the exchange announces in its upgrade; null for Binance, which sends none. */
export function namedIn(response: IncomingMessage): string | null {
  return response.headers[EXCHANGE_IDENTITY_HEADER]?.toString() ?? null
}

/** Returns the error for a handshake that was answered with an HTTP status. */
export function refusedUpgrade(url: string, { statusCode = 0, headers }: IncomingMessage): ExchangeRefusal {
  const refusal = refusalOf(statusCode, headers['retry-after'] ?? null, '', Date.now())
  return new ExchangeRefusal(`${new URL(url).host} refused the WebSocket handshake${byProxy(url)}`, refusal)
}

/**
 * Opens a connection without streams, to learn which exchange this is before anything is written.
 *
 * @throws ExchangeRefusal if it refuses the handshake; other errors if it cannot be reached
 */
export async function askExchange(baseUrl: string, signal: AbortSignal): Promise<ExchangeAnswer> {
  const url = `${baseUrl}/stream`
  const socket = new WebSocket(url, {
    perMessageDeflate: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    agent: tunnelTo(url),
  })
  const { promise, resolve, reject } = Promise.withResolvers<ExchangeAnswer>()
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  socket.once('upgrade', (response) => {
    const timeUnit = parseTimeUnit(response.headers[TIME_UNIT_HEADER]?.toString())
    resolve({ named: namedIn(response), timeUnit })
  })
  socket.once('unexpected-response', (request, response) => {
    request.destroy()
    reject(refusedUpgrade(url, response))
  })
  // Not removed, because terminating a socket while it connects emits an error.
  socket.on('error', reject)
  try {
    return await promise
  } finally {
    signal.removeEventListener('abort', abort)
    socket.terminate()
  }
}
