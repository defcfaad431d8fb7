import type { Agent } from 'node:http'
import { HttpsProxyAgent } from 'https-proxy-agent'
import { getProxyForUrl } from 'proxy-from-env'
import { ProxyAgent } from 'undici'
import { TapelineError } from '../runtime/errors.ts'
import { withoutPassword } from '../runtime/without-password.ts'

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/

/**
 * The proxy for a URL by `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case; null for none. `wss` counts as `https`
 * and `ws` as `http`. This machine is never asked for by way of a proxy.
 *
 * @throws TapelineError `SETTINGS` for a proxy that is no URL, without its text: a password may be in any part of it
 */
function proxyFor(url: string): string | null {
  const target = url.replace(/^ws/, 'http')
  if (LOOPBACK.test(new URL(target).hostname)) return null
  const proxy = getProxyForUrl(target)
  if (proxy === '') return null
  if (/^https?:$/.test(URL.parse(proxy)?.protocol ?? '')) return proxy
  throw new TapelineError(
    'SETTINGS',
    `The proxy that the environment names for ${new URL(target).host} is not an http:// or https:// URL`,
    {
      fix: 'Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, with # / ? and @ in a password as %23 %2F %3F and %40; or name the host in NO_PROXY.',
    },
  )
}

/** How a URL is reached, for a person: the proxy without its password; null where there is none. */
export function routeTo(url: string): string | null {
  const proxy = proxyFor(url)
  return proxy === null ? null : withoutPassword(proxy)
}

/** The route as part of a message; empty where there is no proxy. */
export function byProxy(url: string): string {
  const proxy = routeTo(url)
  return proxy === null ? '' : ` through the proxy ${proxy}`
}

/** For a WebSocket: the agent that opens a tunnel, by CONNECT also for `ws`. */
export function tunnelTo(url: string): Agent | undefined {
  const proxy = proxyFor(url)
  return proxy === null ? undefined : new HttpsProxyAgent(proxy, { keepAlive: false })
}

/** One for each proxy: it keeps connections open between requests. */
const dispatchers = new Map<string, ProxyAgent>()

/** Four times the full `exchangeInfo` of the whole market. Whatever answers with more is no exchange. */
const ANSWER_MAX_BYTES = 64 << 20

/**
 * Fetches a URL through the proxy that the environment names.
 *
 * @returns the answer, of which reading fails after 64 MiB
 */
export async function fetchByProxy(url: string, init: RequestInit): Promise<Response> {
  const proxy = proxyFor(url)
  return bounded(proxy === null ? await fetch(url, init) : await fetch(url, viaProxy(proxy, init)))
}

function viaProxy(proxy: string, init: RequestInit): RequestInit {
  const dispatcher = dispatchers.get(proxy) ?? new ProxyAgent(proxy)
  dispatchers.set(proxy, dispatcher)
  // The types of `undici` and those that Node's `fetch` has from it differ by what they leave out.
  return Object.assign({}, init, { dispatcher })
}

function bounded(response: Response): Response {
  let bytes = 0
  const limit = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      bytes += chunk.length
      if (bytes <= ANSWER_MAX_BYTES) controller.enqueue(chunk)
      else controller.error(new Error('The answer has more than 64 MiB'))
    },
  })
  if (response.body === null) return response
  const { status, statusText, headers } = response
  return new Response(response.body.pipeThrough(limit), { status, statusText, headers })
}
