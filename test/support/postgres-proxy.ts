import { connect, createServer, type Socket } from 'node:net'

/**
 * What to do with a COMMIT: forward it, cut the connection before the server gets it, or cut it
 * after the server has answered and before the client gets the answer.
 */
export type AtCommit = 'pass' | 'cut before' | 'cut after'

/** A proxy between a client and a PostgreSQL server, without TLS. */
export interface PostgresProxy extends AsyncDisposable {
  /** The server's URL, through the proxy. */
  readonly url: string
  /** The number of COMMITs by their fate. */
  readonly commits: Readonly<Record<AtCommit, number>>
}

/** The simple query `COMMIT` on the wire. */
const COMMIT = Buffer.from('Q\0\0\0\x0bCOMMIT\0', 'latin1')

/** @param decide called at each COMMIT, with its number from 1 on */
export async function startPostgresProxy(
  serverUrl: string,
  decide: (commit: number) => AtCommit,
): Promise<PostgresProxy> {
  const target = new URL(serverUrl)
  const commits: Record<AtCommit, number> = { pass: 0, 'cut before': 0, 'cut after': 0 }
  let seen = 0
  const open = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname)
    let cutAtAnswer = false
    const cut = () => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      open.add(socket)
      socket.on('close', () => {
        open.delete(socket)
        cut()
      })
      // The other side notices the closed connection.
      socket.on('error', cut)
    }
    client.on('data', (chunk) => {
      if (chunk.includes(COMMIT)) {
        seen++
        const action = decide(seen)
        commits[action]++
        if (action === 'cut before') {
          cut()
          return
        }
        cutAtAnswer = action === 'cut after'
      }
      upstream.write(chunk)
    })
    upstream.on('data', (chunk) => {
      if (cutAtAnswer) cut()
      else client.write(chunk)
    })
  })
  const port = await new Promise<number>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      if (address === null || typeof address === 'string') reject(new Error('The proxy has no port'))
      else resolve(address.port)
    })
  })
  const url = new URL(serverUrl)
  url.host = `127.0.0.1:${port}`
  return {
    url: url.href,
    commits,
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
