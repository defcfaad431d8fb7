import type { Agent } from 'node:http'
import { HttpsProxyAgent } from 'https-proxy-agent'
import { getProxyForUrl } from 'proxy-from-env'
import { ProxyAgent } from 'undici'
import { TapelineError } from '../runtime/errors.ts'
import { withoutPassword } from '../runtime/without-password.ts'

const LOOPBACK = /^(localhost|127(\.\d+){3}|\[::1\])$/

/**
 * Returns the proxy for a URL from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either
 * case; null for none. `wss` counts as `https`, `ws` as `http`. Local addresses are never proxied.
 * @throws TapelineError `SETTINGS` for another text than a URL, without it: it may contain a password
 */
function proxyFor(url: string): string | null {
  const target = url.replace(/^ws/, 'http')
  if (LOOPBACK.test(new URL(target).hostname)) return null
  const proxy = getProxyForUrl(target)
  if (proxy === '') return null
  if (/^https?:$/.test(URL.parse(proxy)?.protocol ?? '')) return proxy
  const message = `The proxy that the environment names for ${new URL(target).host} is not an http:// or https:// URL`
  throw new TapelineError('SETTINGS', message, {
    fix: 'Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, with # / ? and @ in a password as %23 %2F %3F and %40; or name the host in NO_PROXY.',
  })
}

/** Returns the proxy for a URL as part of a message, without its password; empty without a proxy. */
export function byProxy(url: string): string {
  const proxy = proxyFor(url)
  return proxy === null ? '' : ` through the proxy ${withoutPassword(proxy)}`
}

/**
 * Returns the agent that tunnels a WebSocket through the proxy, with CONNECT even for `ws`.
 * @param abandoned closes the connection to a proxy that has not answered
 */
export function tunnelTo(url: string, abandoned: AbortSignal): Agent | undefined {
  const proxy = proxyFor(url)
  if (proxy === null) return undefined
  const unanswered = new AbortController()
  const abort = () => unanswered.abort()
  const agent = new HttpsProxyAgent(proxy, { keepAlive: false, signal: unanswered.signal })
  abandoned.addEventListener('abort', abort, { once: true })
  agent.once('proxyConnect', () => abandoned.removeEventListener('abort', abort))
  return agent
}

/** One dispatcher per proxy, which keeps connections open between requests. */
const dispatchers = new Map<string, ProxyAgent>()

/** Four times `exchangeInfo` of the whole market. A larger answer is not from an exchange. */
const ANSWER_MAX_BYTES = 64 << 20

/** Fetches a URL through the proxy of the environment. @returns a response whose body fails after 64 MiB */
export async function fetchByProxy(url: string, init: RequestInit): Promise<Response> {
  const proxy = proxyFor(url)
  return bounded(proxy === null ? await fetch(url, init) : await fetch(url, viaProxy(proxy, init)))
}

function viaProxy(proxy: string, init: RequestInit): RequestInit {
  const dispatcher = dispatchers.get(proxy) ?? new ProxyAgent(proxy)
  dispatchers.set(proxy, dispatcher)
  // The types of `undici` and of Node's bundled `fetch` differ in what they omit.
  return Object.assign({}, init, { dispatcher })
}

function bounded(response: Response): Response {
  if (response.body === null) return response
  let bytes = 0
  const limit = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      bytes += chunk.length
      if (bytes <= ANSWER_MAX_BYTES) controller.enqueue(chunk)
      else controller.error(new Error('The answer has more than 64 MiB'))
    },
  })
  const { status, statusText, headers } = response
  return new Response(response.body.pipeThrough(limit), { status, statusText, headers })
}
