import { createServer } from 'node:net'
import { TapelineError } from '../errors.ts'

const HOST = '127.0.0.1'
const HIGHEST_PORT = 65_535

/** Whether nothing listens on this port of 127.0.0.1; with `host`, of that address. */
export function isPortFree(port: number, host = HOST): Promise<boolean> {
  return bind(port, host).then(
    () => true,
    () => false,
  )
}

/** A port of 127.0.0.1 that the system has just called free. */
export function freePort(): Promise<number> {
  return bind(0, HOST)
}

/** `wanted`, or the next higher free port. */
export async function nextFreePort(wanted: number): Promise<number> {
  for (let port = wanted; port <= HIGHEST_PORT; port++) if (await isPortFree(port)) return port
  throw new TapelineError('ENVIRONMENT', `No port from ${wanted} up is free`, {
    fix: 'Stop what listens there.',
  })
}

/** @throws TapelineError `ENVIRONMENT` when something else listens on the port of a setting */
export async function requirePort(port: number, host: string, setting: string): Promise<void> {
  if (port === 0 || (await isPortFree(port, host))) return
  throw new TapelineError('ENVIRONMENT', `Port ${port} on ${host} is taken by another process`, {
    fix: `Stop it (ss -ltnp 'sport = :${port}' shows which), or set ${setting} to a free port.`,
  })
}

function bind(port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen({ port, host, exclusive: true }, () => {
      const address = server.address()
      const bound = address !== null && typeof address === 'object' ? address.port : port
      server.close(() => resolve(bound))
    })
  })
}
