import { connect, createServer, type Socket } from 'node:net'

/** A proxy between a client and a server that can silently drop all data, like a network. */
export interface SilentProxy extends AsyncDisposable {
  /** The server's URL, through the proxy. */
  readonly url: string
  /** Stops all traffic in both directions; connections are accepted and stay open. */
  goSilent(): void
}

export async function startSilentProxy(serverUrl: string): Promise<SilentProxy> {
  const target = new URL(serverUrl)
  const open = new Set<Socket>()
  let isSilent = false
  const server = createServer((client) => {
    const upstream = connect(Number(target.port), target.hostname)
    const pairs = [
      [client, upstream],
      [upstream, client],
    ] as const
    for (const [from, to] of pairs) {
      open.add(from)
      from.on('data', (chunk) => {
        if (!isSilent) to.write(chunk)
      })
      from.on('close', () => {
        open.delete(from)
        // An isolated server does not notice that its client has gone.
        if (!isSilent) to.destroy()
      })
      from.on('error', () => from.destroy())
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The proxy has no port')
  const url = new URL(serverUrl)
  url.host = `127.0.0.1:${address.port}`
  return {
    url: url.href,
    goSilent() {
      isSilent = true
    },
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
