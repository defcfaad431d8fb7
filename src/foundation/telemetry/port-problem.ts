import { createServer } from 'node:net'

/** @returns the system's code for why this port of this address cannot be opened, `EADDRINUSE` mostly; null when it can */
export function portProblem(port: number, host: string): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', (error) => resolve(String(Reflect.get(error, 'code'))))
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(null)))
  })
}

/** What {@link portProblem} found, for people, and what to do. */
export function explainPort(
  code: string,
  port: number,
  host: string,
  setting: string,
): { readonly text: string; readonly fix: string } {
  switch (code) {
    case 'EADDRINUSE':
      return {
        text: `${port} on ${host} is taken by another process`,
        fix: `Stop it (ss -ltnp 'sport = :${port}' shows which), or set ${setting} to a free port.`,
      }
    case 'EACCES':
      return {
        text: `${port} on ${host} may not be opened by this user`,
        fix: `Set ${setting} to a port from 1024 up.`,
      }
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return {
        text: `${port} cannot be opened: ${host} is no address of this machine`,
        fix: 'Set HTTP_HOST to one that it has; 0.0.0.0 is all of them.',
      }
    default:
      return { text: `${port} on ${host} cannot be opened: ${code}`, fix: `Check HTTP_HOST and ${setting}.` }
  }
}
