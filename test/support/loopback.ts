import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'

/** Listens on a port of 127.0.0.1; 0 is any free one. @returns the port */
export async function listen(server: Server, port = 0): Promise<number> {
  await once(server.listen(port, '127.0.0.1'), 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The server has no port')
  return address.port
}

/** Destroys these connections, and waits for the end of the server. */
export async function closeServer(
  server: Server,
  connections: Iterable<{ destroy(): unknown }> = [],
): Promise<void> {
  for (const connection of connections) connection.destroy()
  await new Promise((resolve) => server.close(resolve))
}

/** Starts a proxy in front of a server. @param join connects a client with the server */
async function startProxy(serverUrl: string, join: (client: Socket, upstream: Socket) => void) {
  const url = new URL(serverUrl)
  const [port, host] = [Number(url.port), url.hostname]
  const open = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connect(port, host)
    for (const socket of [client, upstream]) {
      open.add(socket)
      socket.on('close', () => open.delete(socket))
    }
    join(client, upstream)
  })
  url.host = `127.0.0.1:${await listen(server)}`
  /** `url` is the server's, through the proxy. */
  return { url: url.href, [Symbol.asyncDispose]: () => closeServer(server, open) }
}

export type SilentProxy = Awaited<ReturnType<typeof startSilentProxy>>

/** A proxy that can silently drop all data in both directions, like a network. */
export async function startSilentProxy(serverUrl: string) {
  let isSilent = false
  const proxy = await startProxy(serverUrl, (client, upstream) => {
    const pass = (from: Socket, to: Socket) => {
      from.on('data', (chunk) => {
        if (!isSilent) to.write(chunk)
      })
      from.on('close', () => {
        // An isolated server does not notice that its client has gone.
        if (!isSilent) to.destroy()
      })
      from.on('error', () => from.destroy())
    }
    pass(client, upstream)
    pass(upstream, client)
  })
  return {
    ...proxy,
    /** Connections are accepted and stay open. */
    goSilent() {
      isSilent = true
    },
  }
}

/**
 * What to do with a COMMIT: forward it, cut the connection before the server gets it, or cut it
 * after the server has answered and before the client gets the answer.
 */
export type AtCommit = 'pass' | 'cut before' | 'cut after'

/** The simple query `COMMIT` on the wire. */
const COMMIT = Buffer.from('Q\0\0\0\x0bCOMMIT\0', 'latin1')

/** A proxy of PostgreSQL without TLS. @param decide called at each COMMIT, with its number from 1 on */
export async function startPostgresProxy(serverUrl: string, decide: (commit: number) => AtCommit) {
  /** The number of COMMITs by their fate. */
  const commits: Record<AtCommit, number> = { pass: 0, 'cut before': 0, 'cut after': 0 }
  let seen = 0
  const proxy = await startProxy(serverUrl, (client, upstream) => {
    let cutAtAnswer = false
    const cut = () => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) socket.on('close', cut).on('error', cut)
    client.on('data', (chunk) => {
      const action = chunk.includes(COMMIT) ? decide(++seen) : null
      if (action !== null) {
        commits[action]++
        cutAtAnswer = action === 'cut after'
      }
      if (action === 'cut before') cut()
      else upstream.write(chunk)
    })
    upstream.on('data', (chunk) => {
      if (cutAtAnswer) cut()
      else client.write(chunk)
    })
  })
  return { ...proxy, commits }
}
