import { createServer, type IncomingMessage } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import type { Duplex } from 'node:stream'

/**
 * A proxy that opens tunnels and requires a password. Only it resolves names ending in `.invalid`,
 * to this machine.
 */
export interface ForwardProxy extends AsyncDisposable {
  /** With user and password. */
  readonly url: string
  /** The hosts and ports of its tunnels. */
  readonly tunnels: readonly string[]
}

const USER = 'desk:s3cret-word'

export async function startForwardProxy(): Promise<ForwardProxy> {
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
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://${USER}@127.0.0.1:${port}`,
    tunnels,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy()
      await new Promise((done) => server.close(done))
    },
  }
}
