import type { ChildProcess } from 'node:child_process'

/** How a process ended: a code, or the signal that ended it. */
export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A started process that can be stopped and observed. */
export interface RunningProcess {
  readonly pid: number
  /** Resolves when the process has ended, for whatever reason. */
  readonly exited: Promise<Exit>
  /** Sends SIGTERM, and kills the process group after a grace period. Resolves with the exit. */
  stop(): Promise<Exit>
  /** Kills the process and its process group at once. */
  kill(): void
}

export const STOP_GRACE_MS = 12_000

/**
 * Observes a spawned child that leads a process group (`detached: true`). Rejects when it could not
 * be spawned.
 */
export async function runningProcess(
  child: ChildProcess,
  graceMs: number = STOP_GRACE_MS,
): Promise<RunningProcess> {
  const exited = new Promise<Exit>((resolve) =>
    child.once('exit', (code, signal) => resolve({ code, signal })),
  )
  const { pid } = child
  if (pid === undefined) throw await new Promise((resolve) => child.once('error', resolve))
  let ended = false
  const kill = () => {
    // After the child was reaped, its group id may belong to another process.
    if (!ended) killGroup(pid)
  }
  const done = exited.finally(() => {
    ended = true
  })
  return {
    pid,
    exited: done,
    kill,
    async stop() {
      if (!ended) child.kill('SIGTERM')
      const timer = setTimeout(kill, graceMs)
      try {
        return await done
      } finally {
        clearTimeout(timer)
      }
    },
  }
}

export function describeExit({ code, signal }: Exit): string {
  return signal === null ? `exit code ${code}` : `signal ${signal}`
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if (Reflect.get(Object(error), 'code') !== 'ESRCH') throw error
  }
}
