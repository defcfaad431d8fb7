import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'
import { type RunningProcess, runningProcess } from './child-process.ts'
import { STOP_WITH_PARENT } from './program-files.ts'

export interface NodeChildOptions {
  readonly script: string
  readonly args: readonly string[]
  /** The whole environment; nothing is inherited but how `bin/tapeline` runs Node. */
  readonly env: NodeJS.ProcessEnv
  /** Standard output and error are appended here, by the child itself: its log does not depend on this process. */
  readonly logFile: string
  /** Milliseconds between SIGTERM and SIGKILL when it is stopped. */
  readonly graceMs?: number
}

/**
 * Starts a script on this process's own Node, in a process group of its own (a terminal's Ctrl-C does not reach it),
 * with an IPC channel by which it notices that this process is gone.
 */
export async function spawnNode(
  options: NodeChildOptions,
): Promise<{ child: ChildProcess; running: RunningProcess }> {
  const log = openSync(options.logFile, 'a')
  try {
    const child = spawn(process.execPath, ['--import', STOP_WITH_PARENT, options.script, ...options.args], {
      stdio: ['ignore', log, log, 'ipc'],
      detached: true,
      env: { ...MEMORY, ...compileCache(), ...options.env },
    })
    return { child, running: await runningProcess(child, options.graceMs) }
  } finally {
    closeSync(log)
  }
}

/** As `bin/tapeline` has it. */
const MEMORY = { MALLOC_ARENA_MAX: '2', NODE_OPTIONS: '--max-semi-space-size=8 --v8-pool-size=1' }

/** Node keeps what it compiled in a folder of its version, below the one that it was told. */
function compileCache(): NodeJS.ProcessEnv {
  const folder = getCompileCacheDir()
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: dirname(folder) }
}
