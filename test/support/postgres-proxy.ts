import { connect, createServer, type Socket } from 'node:net'

/**
 * What to do with a COMMIT: let it through, cut the connection before the server hears of it, or after the server has
 * answered and before the client hears of that.
 */
export type AtCommit = 'pass' | 'cut before' | 'cut after'

/** Stands between a client and a PostgreSQL server, without TLS. */
export interface PostgresProxy extends AsyncDisposable {
  /** The server's own URL, through the proxy. */
  readonly url: string
  /** COMMITs that were seen, by what became of them. */
  readonly commits: Readonly<Record<AtCommit, number>>
}

/** The simple query `COMMIT`, as it goes over the wire. */
const COMMIT = Buffer.from('Q\0\0\0\x0bCOMMIT\0', 'latin1')

/** @param decide asked at each COMMIT, which is counted from 1 */
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
      // The other side learns it by the cut.
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
