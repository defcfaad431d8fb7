import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'

/** The body of the refusal. */
export const FOREIGN_HOST =
  'The Host header of this request does not name this machine. Use localhost or an IP address; a proxy on this machine must send one of these.\n'

/**
 * Whether a loopback request names another host. A web page can make its domain resolve to
 * 127.0.0.1 and would then read our answers ("DNS rebinding"); an IP address cannot be redirected
 * so.
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
