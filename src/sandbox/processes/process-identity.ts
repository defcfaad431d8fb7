import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** Identifies a process. The system reuses pids, so the start time is included. */
export interface ProcessIdentity {
  readonly pid: number
  /** Opaque. Equal only for the same process, on this boot of this machine. */
  readonly startTime: string
}

export function ownIdentity(): ProcessIdentity {
  return { pid: process.pid, startTime: startTimeOf(process.pid) ?? 'unknown' }
}

/** Identity of a running process; null when there is none with this pid, or it is a zombie. */
export function identify(pid: number): ProcessIdentity | null {
  const startTime = startTimeOf(pid)
  return startTime === null ? null : { pid, startTime }
}

/** Whether this process still runs; false when its pid now belongs to another one. */
export function isRunning(identity: ProcessIdentity): boolean {
  return startTimeOf(identity.pid) === identity.startTime
}

/** Whether `value`, read from a file, has the shape of an identity. */
export function isIdentity(value: unknown): value is ProcessIdentity {
  const field = (name: keyof ProcessIdentity): unknown => Reflect.get(Object(value), name)
  return Number.isSafeInteger(field('pid')) && typeof field('startTime') === 'string'
}

/** proc(5): after the command in parentheses follow state (3rd) … starttime (22nd), in ticks. */
function fromProc(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const [state, ticks] = [fields[0], fields[19]]
    if (state === 'Z' || state === 'X' || ticks === undefined) return null
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()}:${ticks}`
  } catch {
    // The process does not exist, or ended in the meantime.
    return null
  }
}

function fromPs(pid: number): string | null {
  try {
    const line = execFileSync('ps', ['-o', 'stat=,lstart=', '-p', String(pid)], {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'] ?? '/bin:/usr/bin', LC_ALL: 'C', TZ: 'UTC' },
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
    return line === '' || line.startsWith('Z') ? null : line.slice(line.indexOf(' ')).trim()
  } catch {
    // `ps` exits with 1 when there is no such process.
    return null
  }
}

const startTimeOf = process.platform === 'linux' ? fromProc : fromPs
