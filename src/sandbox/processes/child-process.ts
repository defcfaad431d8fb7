import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'
import { sleep } from '../../foundation/runtime/backoff.ts'
import { NODE_ENVIRONMENT } from '../../foundation/runtime/node-flags.ts'
import { STOP_WITH_PARENT } from './files.ts'

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
  kill(): void
}

export const STOP_GRACE_MS = 12_000

interface LoggedOptions {
  /** Opened by the child, so that its log does not depend on this process reading it. */
  readonly logFile: string
  /** Milliseconds between SIGTERM and SIGKILL at a stop. */
  readonly graceMs?: number
}

/** Starts a program that leads a process group, which a terminal's Ctrl-C does not reach. */
export async function spawnLogged(
  command: string,
  args: readonly string[],
  { logFile, graceMs, ...options }: LoggedOptions & Pick<SpawnOptions, 'cwd' | 'env'>,
  channel: ReadonlyArray<'ipc'> = [],
): Promise<{ child: ChildProcess; running: RunningProcess }> {
  const log = openSync(logFile, 'a')
  try {
    const stdio: SpawnOptions['stdio'] = ['ignore', log, log, ...channel]
    const child = spawn(command, args, { ...options, stdio, detached: true })
    return { child, running: await runningProcess(child, graceMs) }
  } finally {
    closeSync(log)
  }
}

/** Starts a script on this Node, which ends with this process. @param options `env` is complete */
export function spawnNode(
  options: LoggedOptions & { script: string; args: readonly string[]; env: NodeJS.ProcessEnv },
): ReturnType<typeof spawnLogged> {
  const { script, args, env, ...logged } = options
  const all = { ...NODE_ENVIRONMENT, ...compileCache(), ...env }
  const nodeArgs = ['--import', STOP_WITH_PARENT, script, ...args]
  return spawnLogged(process.execPath, nodeArgs, { ...logged, env: all }, ['ipc'])
}

/** Node stores compiled code in a folder per version, below the configured one. */
function compileCache(): NodeJS.ProcessEnv {
  const folder = getCompileCacheDir()
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: dirname(folder) }
}

/** Observes a child that leads a process group (`detached`). Rejects if it could not be spawned. */
export async function runningProcess(child: ChildProcess, graceMs = STOP_GRACE_MS): Promise<RunningProcess> {
  const exited = new Promise<Exit>((resolve) =>
    child.once('exit', (code, signal) => resolve({ code, signal })),
  )
  const { pid } = child
  if (pid === undefined) throw await new Promise((resolve) => child.once('error', resolve))
  let ended = false
  const kill = () => {
    // After the child was reaped, its group id may belong to another process.
    if (!ended) signalIfThere(-pid, 'SIGKILL')
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

/** Polls until `ready`. @returns null then; how the process ended before, or `late` when the time is up */
export async function untilReady(
  ready: () => Promise<boolean>,
  running: RunningProcess,
  { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
): Promise<Exit | 'late' | null> {
  const deadline = performance.now() + timeoutMs
  let exit: Exit | null = null
  void running.exited.then((how) => {
    exit = how
  })
  while (!(await ready())) {
    signal?.throwIfAborted()
    if (exit !== null) return exit
    if (performance.now() > deadline) return 'late'
    await sleep(100, signal)
  }
  return null
}

export function describeExit({ code, signal }: Exit): string {
  return signal === null ? `exit code ${code}` : `signal ${signal}`
}

/** Sends a signal to a process, or to the process group `-pid`, unless it has ended. */
export function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if (Reflect.get(Object(error), 'code') !== 'ESRCH') throw error
  }
}
