import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'
import { TapelineError } from '../errors.ts'

const HOST = '127.0.0.1'
const HIGHEST_PORT = 65_535
/** Below the ports that systems give to outgoing connections and to servers that ask for any (32,768 up on Linux). */
const OWN_PORTS = { first: 20_000, count: 12_768 }

/** Whether nothing listens on this port of 127.0.0.1; with `host`, of that address. */
export function isPortFree(port: number, host = HOST): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)))
  })
}

/**
 * A port of 127.0.0.1 that was free a moment ago, for a program that is started with it. It is drawn from those the
 * system gives to nobody by itself, so that none is likely to take it in the meantime.
 */
export function freePort(): Promise<number> {
  return nextFreePort(OWN_PORTS.first + randomInt(OWN_PORTS.count))
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
