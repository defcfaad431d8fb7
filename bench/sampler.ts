import { readFileSync } from 'node:fs'
import { descendantsOf } from '../test/support/process-tree.ts'

const EVERY_MS = 250
/** Clock ticks per second of `/proc`, the same on every Linux (`getconf CLK_TCK`). */
const TICKS_PER_SECOND = 100

export interface Usage {
  /** CPU time, user and system, in seconds. */
  readonly cpuSeconds: number
  /** Resident memory now, in bytes; 0 once the process has ended. */
  readonly residentBytes: number
  /** Peak resident memory since the process began, in bytes. */
  readonly peakBytes: number
}

/**
 * Measures the resource usage of processes. It also samples periodically, to keep the figures of
 * one that exits.
 */
export class Sampler {
  readonly #pids: Readonly<Record<string, number>>
  readonly #latest = new Map<string, Usage>()
  readonly #timer: NodeJS.Timeout

  constructor(pids: Readonly<Record<string, number>>) {
    this.#pids = pids
    this.#timer = setInterval(() => this.now(), EVERY_MS)
  }

  now(): Readonly<Record<string, Usage>> {
    for (const [name, pid] of Object.entries(this.#pids)) {
      const usage = usageOf(pid)
      if (usage === null) continue
      // A process that has ended and was not waited for yet has no memory.
      const peakBytes = Math.max(usage.peakBytes, this.#latest.get(name)?.peakBytes ?? 0)
      this.#latest.set(name, { ...usage, peakBytes })
    }
    return Object.fromEntries(this.#latest)
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}

/** Usage of a process and its children, ended ones included; null if there is no such process. */
function usageOf(pid: number): Usage | null {
  const own = statOf(pid)
  if (own === null) return null
  const children = descendantsOf(pid).map((child) => statOf(child.pid)?.ticks ?? 0)
  const ticks = own.ticks + own.endedChildrenTicks + children.reduce((sum, one) => sum + one, 0)
  return {
    cpuSeconds: ticks / TICKS_PER_SECOND,
    residentBytes: memoryOf(pid, 'VmRSS'),
    peakBytes: memoryOf(pid, 'VmHWM'),
  }
}

function statOf(pid: number): { ticks: number; endedChildrenTicks: number } | null {
  const text = readOrNull(`/proc/${pid}/stat`)
  if (text === null) return null
  // proc_pid_stat(5): the command's name may contain spaces, so count the fields after it; utime is
  // field 14.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
  const [user = 0, system = 0, childUser = 0, childSystem = 0] = fields.slice(11, 15).map(Number)
  return { ticks: user + system, endedChildrenTicks: childUser + childSystem }
}

/** @param line of proc_pid_status(5) */
function memoryOf(pid: number, line: 'VmRSS' | 'VmHWM'): number {
  const status = readOrNull(`/proc/${pid}/status`) ?? ''
  return Number(new RegExp(`^${line}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? 0) * 1024
}

function readOrNull(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return null // It has exited.
  }
}
