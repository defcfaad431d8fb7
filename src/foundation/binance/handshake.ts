import type { IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import { TapelineError } from '../runtime/errors.ts'
import { tunnelTo } from './proxy.ts'

/** The header by which our own exchanges name themselves in the WebSocket upgrade. */
const EXCHANGE_IDENTITY_HEADER = 'x-tapeline-source'

const HANDSHAKE_TIMEOUT_MS = 10_000

/** What the exchange names itself in its answer to the upgrade; null where it does not, as Binance. */
export function namedIn(response: IncomingMessage): string | null {
  return response.headers[EXCHANGE_IDENTITY_HEADER]?.toString() ?? null
}

/** The error for an upgrade that was answered with an HTTP status. */
export function refusedUpgrade(url: string, statusCode: number): Error {
  const { host } = new URL(url)
  if (statusCode === 451) {
    return new TapelineError('EXCHANGE', `${host} refuses this region (HTTP 451)`, {
      fix: 'Run from a place that the exchange serves, or set BINANCE_WS_URL to the host for yours.',
    })
  }
  return new Error(`${host} answered the upgrade with HTTP ${statusCode}`)
}

/**
 * Opens a connection without a stream, to learn which exchange this is before anything is written about it.
 *
 * @returns what it names itself; null where it does not
 * @throws TapelineError `EXCHANGE` when it refuses this region; other errors when it cannot be reached
 */
export async function askExchangeIdentity(baseUrl: string, signal: AbortSignal): Promise<string | null> {
  const url = `${baseUrl}/stream`
  const socket = new WebSocket(url, {
    perMessageDeflate: false,
    handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
    agent: tunnelTo(url),
  })
  const { promise, resolve, reject } = Promise.withResolvers<string | null>()
  const abort = () => reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  socket.once('upgrade', (response) => resolve(namedIn(response)))
  socket.once('unexpected-response', (request, response) => {
    request.destroy()
    reject(refusedUpgrade(url, response.statusCode ?? 0))
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
