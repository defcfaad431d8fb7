import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, isIP } from 'node:net'
import { describeError, TapelineError } from '../runtime/errors.ts'
import { explainPort } from './port-problem.ts'

/** The answers of a service over HTTP, computed for each request so that health is current. */
export interface HealthSources {
  /** Returns whether the service is ready, and why not. */
  readiness(): { readonly ready: boolean; readonly reason: string }
  /** Returns why a restart could help; empty or absent if it could not. */
  whyNotLive?(): string
  status(): unknown
  /** Returns the metrics in Prometheus' text format. */
  metrics(): Promise<string>
}

export interface HealthServer {
  readonly url: string
  close(): Promise<void>
}

/** Serves `/`, `/livez`, `/readyz`, `/metrics` and `/status`. @throws TapelineError `ENVIRONMENT` */
export async function startHealthServer(
  address: { host: string; port: number; portSetting: string },
  sources: HealthSources,
): Promise<HealthServer> {
  const server = createServer((request, response) => {
    answer(request, response, sources).catch((error: unknown) => {
      response.writeHead(500).end(`${describeError(error)}\n`)
    })
  })
  server.keepAliveTimeout = 1000
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(cannotListen(error, address)))
    server.listen(address.port, address.host, resolve)
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://${address.host}:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  sources: HealthSources,
): Promise<void> {
  const send = (code: number, body: string, type = 'text/plain; charset=utf-8') => {
    response.writeHead(code, { 'content-type': type, 'cache-control': 'no-store' })
    response.end(request.method === 'HEAD' ? undefined : body)
  }
  if (hasForeignHost(request)) return send(403, FOREIGN_HOST)
  if (request.method !== 'GET' && request.method !== 'HEAD') return send(405, 'method not allowed\n')
  switch (new URL(request.url ?? '/', 'http://localhost').pathname) {
    case '/':
      return sources.readiness().ready ? send(200, 'ok') : send(503, 'starting')
    case '/livez': {
      const reason = sources.whyNotLive?.() ?? ''
      return reason === '' ? send(200, 'ok') : send(503, `not live: ${reason}`)
    }
    case '/readyz': {
      const { ready, reason } = sources.readiness()
      return ready ? send(200, 'ready') : send(503, `not ready: ${reason}`)
    }
    case '/metrics':
      return send(200, await sources.metrics(), 'text/plain; version=0.0.4; charset=utf-8')
    case '/status':
      return send(200, `${JSON.stringify(sources.status(), null, 2)}\n`, 'application/json; charset=utf-8')
    default:
      return send(404, 'not found: try /, /livez, /readyz, /metrics or /status\n')
  }
}

function cannotListen(error: Error, address: { host: string; port: number; portSetting: string }): Error {
  const { port, host, portSetting } = address
  const { text, fix } = explainPort(String(Reflect.get(error, 'code')), port, host, portSetting)
  return new TapelineError('ENVIRONMENT', `Port ${text}`, { fix, cause: error })
}

/** The body of the refusal. */
export const FOREIGN_HOST =
  'The Host header of this request does not name this machine. Use localhost or an IP address; a proxy on this machine must send one of these.\n'

/**
 * Whether a loopback request names another host: a web page can make its domain resolve to 127.0.0.1 and
 * read our answers ("DNS rebinding"); an IP address cannot be redirected so.
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
