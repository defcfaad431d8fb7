import type { IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import { parseTimeUnit, type TimeUnit } from '../market/time-unit.ts'
import { byProxy, tunnelTo } from './proxy.ts'
import { ExchangeRefusal, refusalOf } from './refusal.ts'

/** The header by which our own exchanges name themselves, in the WebSocket upgrade and in REST answers. */
export const EXCHANGE_IDENTITY_HEADER = 'x-tapeline-source'

/** The header by which a replay says what the times of its capture are in: it has them in no other unit. */
const TIME_UNIT_HEADER = 'x-tapeline-time-unit'

const HANDSHAKE_TIMEOUT_MS = 10_000

/** What an exchange says of itself in its answer to the upgrade. */
export interface ExchangeAnswer {
  /** Null where it does not name itself. */
  readonly named: string | null
  /** Null where it gives times in the unit that a client asks for. */
  readonly timeUnit: TimeUnit | null
}

/** What the exchange names itself in its answer to the upgrade; null where it does not, as Binance. */
export function namedIn(response: IncomingMessage): string | null {
  return response.headers[EXCHANGE_IDENTITY_HEADER]?.toString() ?? null
}

/** The error for a handshake that was answered with an HTTP status. */
export function refusedUpgrade(url: string, { statusCode = 0, headers }: IncomingMessage): ExchangeRefusal {
  const refusal = refusalOf(statusCode, headers['retry-after'] ?? null, '', Date.now())
  return new ExchangeRefusal(`${new URL(url).host} refused the WebSocket handshake${byProxy(url)}`, refusal)
}

/**
 * Opens a connection without a stream, to learn which exchange this is before anything is written about it.
 *
 * @throws ExchangeRefusal when it refuses the handshake; other errors when it cannot be reached
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
  // Stays: terminating a socket that is still connecting is an error of its own.
  socket.on('error', reject)
  try {
    return await promise
  } finally {
    signal.removeEventListener('abort', abort)
    socket.terminate()
  }
}
