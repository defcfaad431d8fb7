import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../../foundation/runtime/backoff.ts'
import { makeFolder } from '../../foundation/runtime/folders.ts'
import { type RunningProcess, STOP_GRACE_MS, signalIfThere } from './child-process.ts'
import { readJson, writeJson } from './files.ts'
import { identify, isIdentity, isRunning, ownIdentity, type ProcessIdentity } from './process-identity.ts'

/** The parts that `up` starts, in the order in which it stops them. */
export const ROLES = ['dashboard', 'ingest', 'consume', 'archive', 'exchange', 'database', 'kafka'] as const
export type Role = (typeof ROLES)[number]

/**
 * Addresses of the parts of a running `up`. The database's URL contains the password, and is `none`
 * without a database; then `consumerUrl` is empty. `archiveUrl` is the archive's service and `archive`
 * its folder or store, as for ARCHIVE_URL; both are empty without an archive.
 */
export type Endpoints = Readonly<Record<(typeof ENDPOINTS)[number], string>>
const ENDPOINTS = [
  'source',
  'kafkaBrokers',
  'databaseUrl',
  'ingestUrl',
  'consumerUrl',
  'archiveUrl',
  'archive',
] as const

const ENDPOINTS_FILE = 'endpoints.json'
const POLL_MS = 50

/** Records a role's process until it ends: the next start ends it if this process is killed. */
export function recordProcess(runDir: string, role: Role, { pid, exited }: RunningProcess): void {
  const identity = identify(pid)
  if (identity !== null) writePrivate(runDir, `${role}.json`, identity)
  void exited.then(() => {
    const path = join(runDir, `${role}.json`)
    // The file may name its successor.
    if (readIdentity(path)?.pid === pid) rmSync(path, { force: true })
  })
}

/** Ends processes that a killed `up` left running, never one with a reused pid. @returns those that ran */
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
    if (!isEndpoints(value)) continue
    const { up, ...endpoints } = value
    if (isIdentity(up) && isRunning(up)) return endpoints
  }
  return null
}

async function endProcess(identity: ProcessIdentity, graceMs: number): Promise<void> {
  const deadline = performance.now() + graceMs
  signalIfThere(identity.pid, 'SIGTERM')
  while (isRunning(identity) && performance.now() < deadline) await sleep(POLL_MS)
  if (!isRunning(identity)) return
  // It leads a process group, as every process that `up` starts.
  signalIfThere(-identity.pid, 'SIGKILL')
  while (isRunning(identity)) await sleep(POLL_MS)
}

function writePrivate(runDir: string, name: string, value: object): void {
  makeFolder(runDir, 0o700)
  writeJson(join(runDir, name), value)
}

function readIdentity(path: string): ProcessIdentity | null {
  const value = readJson(path)
  return isIdentity(value) ? value : null
}

function isEndpoints(value: unknown): value is Endpoints & { readonly up: unknown } {
  return ENDPOINTS.every((name) => typeof Reflect.get(Object(value), name) === 'string')
}

function subdirectories(dataDir: string): string[] {
  try {
    return readdirSync(dataDir)
  } catch {
    // No data directory, so nothing runs with it.
    return []
  }
}
