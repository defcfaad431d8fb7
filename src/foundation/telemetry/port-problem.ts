import { createServer } from 'node:net'

/** @returns the system's code for why a port cannot be opened, like `EADDRINUSE`; null if it can */
export function portProblem(port: number, host: string): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', (error) => resolve(String(Reflect.get(error, 'code'))))
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(null)))
  })
}

/** Explains the result of {@link portProblem}, with a fix. */
export function explainPort(
  code: string,
  port: number,
  host: string,
  setting: string,
): { readonly text: string; readonly fix: string } {
  const place = `${port} on ${host}`
  switch (code) {
    case 'EADDRINUSE': {
      const fix = `Stop it (ss -ltnp 'sport = :${port}' shows which), or set ${setting} to a free port.`
      return { text: `${place} is in use by another process`, fix }
    }
    case 'EACCES': {
      const fix = `Set ${setting} to a port from 1024 up.`
      return { text: `${place} cannot be opened by this user`, fix }
    }
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return {
        text: `${port} cannot be opened: ${host} is not an address of this machine`,
        fix: 'Set HTTP_HOST to an address of this machine; 0.0.0.0 means all of them.',
      }
    default:
      return { text: `${place} cannot be opened: ${code}`, fix: `Check HTTP_HOST and ${setting}.` }
  }
}
