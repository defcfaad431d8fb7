import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sleep } from '../../src/foundation/runtime/backoff.ts'
import { parseJson } from '../../src/foundation/runtime/outside-text.ts'
import {
  identify,
  isIdentity,
  isRunning,
  ownIdentity,
  type ProcessIdentity,
} from '../../src/sandbox/processes/process-identity.ts'

const COMMAND_LENGTH = 120
const OWNER = 'owner.json'

/** Marks a folder as this process's. */
export function markFolder(folder: string): void {
  writeFileSync(join(folder, OWNER), JSON.stringify(ownIdentity()))
}

/** The mark in a folder; '' if there is none yet. */
export function markIn(folder: string): string {
  return readOrUndefined(join(folder, OWNER)) ?? ''
}

/** Whether the process of a mark is running; a text that is no mark belongs to none. */
export function isOwned(mark: string): boolean {
  const identity = parseJson(mark)
  return isIdentity(identity) && isRunning(identity)
}

/** Returns the running direct and indirect children of a process; [] without /proc. */
export function descendantsOf(pid: number): ProcessIdentity[] {
  const childrenOf = new Map<number, number[]>()
  for (const candidate of runningPids()) {
    // The command's name, second and in parentheses, may contain spaces: count the fields after it
    // (proc_pid_stat(5)).
    const stat = readOrUndefined(`/proc/${candidate}/stat`)
    const parent = Number(stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
    childrenOf.set(parent, [...(childrenOf.get(parent) ?? []), candidate])
  }
  const found: ProcessIdentity[] = []
  const pending = [...(childrenOf.get(pid) ?? [])]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const identity = identify(next)
    if (identity !== null) found.push(identity)
    pending.push(...(childrenOf.get(next) ?? []))
  }
  return found
}

/** Returns the processes with this inherited variable, with their commands; [] without /proc. */
export function processesWithVariable(name: string) {
  const prefix = `${name}=`
  return runningPids().flatMap((pid) => {
    const environment = readOrUndefined(`/proc/${pid}/environ`)?.split('\0')
    const entry = environment?.find((variable) => variable.startsWith(prefix))
    const identity = entry === undefined ? null : identify(pid)
    if (entry === undefined || identity === null) return []
    const command = (readOrUndefined(`/proc/${pid}/cmdline`) ?? '')
      .replaceAll('\0', ' ')
      .trim()
      .slice(0, COMMAND_LENGTH)
    return [{ identity, value: entry.slice(prefix.length), command }]
  })
}

/** Signals the process unless it has exited; returns false if it had. */
export function signalIfRunning(identity: ProcessIdentity, signal: NodeJS.Signals): boolean {
  if (!isRunning(identity)) return false
  try {
    return process.kill(identity.pid, signal)
  } catch (error) {
    if (error instanceof Error && Reflect.get(error, 'code') === 'ESRCH') return false
    throw error
  }
}

/** Polls until none of them runs. @returns false if some still run after `timeoutMs` */
export async function haveEnded(identities: readonly ProcessIdentity[], timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (identities.some(isRunning)) {
    if (performance.now() > deadline) return false
    await sleep(20)
  }
  return true
}

function runningPids(): number[] {
  try {
    return readdirSync('/proc').map(Number).filter(Number.isInteger)
  } catch {
    return [] // There is no /proc.
  }
}

/** A process may exit or change its owner between the listing and the read. */
function readOrUndefined(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}
