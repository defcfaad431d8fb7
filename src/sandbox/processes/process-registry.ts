import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../../foundation/runtime/backoff.ts'
import { STOP_GRACE_MS } from './child-process.ts'
import { readJson, writeJson } from './files.ts'
import { identify, isIdentity, isRunning, ownIdentity, type ProcessIdentity } from './process-identity.ts'

/** The parts that `up` starts, in the order in which it stops them. */
export const ROLES = ['dashboard', 'ingest', 'consume', 'exchange', 'database', 'kafka'] as const
export type Role = (typeof ROLES)[number]

/** Addresses of the parts of a running `up`. */
export interface Endpoints {
  readonly source: string
  readonly kafkaBrokers: string
  /** Contains the password: never print it. */
  readonly databaseUrl: string
  readonly ingestUrl: string
  readonly consumerUrl: string
  readonly dashboardUrl?: string
}

const ENDPOINTS_FILE = 'endpoints.json'
const POLL_MS = 50

/**
 * Records the process of a role in a file, so that the next start can end it if this process is
 * killed.
 */
export function recordProcess(runDir: string, role: Role, pid: number): void {
  const identity = identify(pid)
  if (identity !== null) writePrivate(runDir, `${role}.json`, identity)
}

/** Call when the process has ended. Keeps the record of a successor. */
export function forgetProcess(runDir: string, role: Role, pid: number): void {
  const path = join(runDir, `${role}.json`)
  if (readIdentity(path)?.pid === pid) rmSync(path, { force: true })
}

/**
 * Ends the processes that a killed `up` left running: SIGTERM, then SIGKILL after the grace period.
 * Never touches a process that only has a reused pid.
 *
 * @returns the processes that were still running
 */
export async function cleanUpLeftOvers(
  runDir: string,
  graceMs: number = STOP_GRACE_MS,
): Promise<Array<{ role: Role; pid: number }>> {
  const ended: Array<{ role: Role; pid: number }> = []
  for (const role of ROLES) {
    const path = join(runDir, `${role}.json`)
    const identity = readIdentity(path)
    if (identity !== null && isRunning(identity)) {
      ended.push({ role, pid: identity.pid })
      await endProcess(identity, graceMs)
    }
    rmSync(path, { force: true })
  }
  rmSync(join(runDir, ENDPOINTS_FILE), { force: true })
  return ended
}

export function writeEndpoints(runDir: string, endpoints: Endpoints): void {
  writePrivate(runDir, ENDPOINTS_FILE, { ...endpoints, up: ownIdentity() })
}

/** Addresses of the `up` that runs with this DATA_DIR; null when there is none. */
export function readRunningEndpoints(dataDir: string): Endpoints | null {
  for (const source of subdirectories(dataDir)) {
    const value = readJson(join(dataDir, source, 'run', ENDPOINTS_FILE))
    const up: unknown = Reflect.get(Object(value), 'up')
    if (isIdentity(up) && isRunning(up)) return parseEndpoints(value)
  }
  return null
}

async function endProcess(identity: ProcessIdentity, graceMs: number): Promise<void> {
  const deadline = performance.now() + graceMs
  signal(identity.pid, 'SIGTERM')
  while (isRunning(identity) && performance.now() < deadline) await sleep(POLL_MS)
  if (!isRunning(identity)) return
  // It leads a process group, as every process that `up` starts.
  signal(-identity.pid, 'SIGKILL')
  while (isRunning(identity)) await sleep(POLL_MS)
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch (error) {
    // It has ended in the meantime.
    if (Reflect.get(Object(error), 'code') !== 'ESRCH') throw error
  }
}

function writePrivate(runDir: string, name: string, value: object): void {
  mkdirSync(runDir, { recursive: true, mode: 0o700 })
  writeJson(join(runDir, name), value)
}

function readIdentity(path: string): ProcessIdentity | null {
  const value = readJson(path)
  return isIdentity(value) ? value : null
}

function parseEndpoints(value: unknown): Endpoints {
  const text = (name: keyof Endpoints) => String(Reflect.get(Object(value), name) ?? '')
  const dashboardUrl = text('dashboardUrl')
  return {
    source: text('source'),
    kafkaBrokers: text('kafkaBrokers'),
    databaseUrl: text('databaseUrl'),
    ingestUrl: text('ingestUrl'),
    consumerUrl: text('consumerUrl'),
    ...(dashboardUrl === '' ? {} : { dashboardUrl }),
  }
}

function subdirectories(dataDir: string): string[] {
  try {
    return readdirSync(dataDir, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [entry.name] : [],
    )
  } catch {
    // No data directory, so nothing runs with it.
    return []
  }
}
