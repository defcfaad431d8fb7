import type { ChildProcess } from 'node:child_process'

/** How a process ended: a code, or the signal that ended it. */
export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A process that has been started: it can be stopped, and told when it ends. */
export interface RunningProcess {
  readonly pid: number
  /** Fulfilled when it has ended, however it ended. */
  readonly exited: Promise<Exit>
  /** Asks it to stop; kills it and its process group when it has not by then. Fulfilled with how it ended. */
  stop(): Promise<Exit>
  /** Ends it and its process group at once. */
  kill(): void
}

export const STOP_GRACE_MS = 12_000

/**
 * Watches over a spawned child that leads its own process group (`detached: true`). Rejects when it could not be
 * spawned.
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
    // The group of a child that has been reaped may by now be another's.
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
