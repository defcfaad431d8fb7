import { connect, createServer, type Socket } from 'node:net'

/** Stands between a client and a server, and can lose everything without a word, as a network does. */
export interface SilentProxy extends AsyncDisposable {
  /** The server's own URL, through the proxy. */
  readonly url: string
  /** From now on nothing passes, in either direction; connections are accepted and stay open. */
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
        // A server that is cut off does not learn that its client has gone.
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
