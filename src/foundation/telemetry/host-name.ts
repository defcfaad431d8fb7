import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'

/** Told to whoever is refused. */
export const FOREIGN_HOST =
  'The Host of this request is no name of this machine. Ask by localhost or an address; a proxy on this machine must send one of these.\n'

/**
 * Whether a request that came over loopback was meant for a host of another name. A page of the web can let its own name stand for
 * 127.0.0.1, and would then read what is answered here ("DNS rebinding"); an address in its place cannot be turned so.
 */
export function hasForeignHost({ headers, socket }: IncomingMessage): boolean {
  const { host } = headers
  if (host === undefined || !isLoopback(socket.localAddress ?? '')) return false
  const name = URL.parse(`http://${host}`)?.hostname.replace(/^\[|\]$/g, '') ?? host
  return isIP(name) === 0 && name !== 'localhost' && !name.endsWith('.localhost')
}

function isLoopback(address: string): boolean {
  return address === '::1' || /^(::ffff:)?127\./.test(address)
}
