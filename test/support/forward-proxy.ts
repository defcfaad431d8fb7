import { createServer, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { closeServer, listen } from './loopback.ts'

const USER = 'desk:s3cret-word'

/** A tunnelling proxy with a password. Only it resolves `.invalid` names, to this machine. */
export async function startForwardProxy() {
  /** The hosts and ports of its tunnels. */
  const tunnels: string[] = []
  const open = new Set<Duplex>()
  const expected = `Basic ${Buffer.from(USER).toString('base64')}`
  const server = createServer((_, response) => response.writeHead(405).end())
  server.on('connect', (request: IncomingMessage, client: Duplex, head: Buffer) => {
    open.add(client)
    client.on('error', () => {}).on('close', () => open.delete(client))
    if (request.headers['proxy-authorization'] !== expected) {
      client.end('HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n')
      return
    }
    const { hostname, port } = new URL(`tunnel://${request.url}`)
    tunnels.push(request.url ?? '')
    const upstream = connect(Number(port), hostname.endsWith('.invalid') ? '127.0.0.1' : hostname, () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.write(head)
      upstream.pipe(client)
      client.pipe(upstream)
    })
    upstream.on('error', () => client.destroy()).on('close', () => client.destroy())
    client.on('close', () => upstream.destroy())
  })
  return {
    /** With user and password. */
    url: `http://${USER}@127.0.0.1:${await listen(server)}`,
    tunnels,
    [Symbol.asyncDispose]: () => closeServer(server, open),
  }
}
