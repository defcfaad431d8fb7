import { randomInt } from 'node:crypto'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { explainPort, portProblem } from '../../foundation/telemetry/port-problem.ts'

const HOST = '127.0.0.1'
const HIGHEST_PORT = 65_535
/** Below the range for outgoing connections and for servers on any port (from 32,768 on Linux). */
const OWN_PORTS = { first: 20_000, count: 12_768 }

/** Whether this port of 127.0.0.1 can be opened. */
export async function isPortFree(port: number): Promise<boolean> {
  return (await portProblem(port, HOST)) === null
}

/** A free port of 127.0.0.1 that the system does not assign automatically in the meantime. */
export function freePort(): Promise<number> {
  return nextFreePort(OWN_PORTS.first + randomInt(OWN_PORTS.count))
}

/** Returns `wanted`, or the next free port above. */
export async function nextFreePort(wanted: number): Promise<number> {
  for (let port = wanted; port <= HIGHEST_PORT; port++) if (await isPortFree(port)) return port
  throw new TapelineError('ENVIRONMENT', `No free port from ${wanted} up`, {
    fix: 'Stop the programs that listen there.',
  })
}

/** @throws TapelineError `ENVIRONMENT` when the port of a setting cannot be opened */
export async function requirePort(port: number, host: string, setting: string): Promise<void> {
  const code = port === 0 ? null : await portProblem(port, host)
  if (code === null) return
  const { text, fix } = explainPort(code, port, host, setting)
  throw new TapelineError('ENVIRONMENT', `Port ${text}`, { fix })
}
