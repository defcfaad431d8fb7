import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'
import { NODE_ENVIRONMENT } from '../../foundation/runtime/node-flags.ts'
import { type RunningProcess, runningProcess } from './child-process.ts'
import { STOP_WITH_PARENT } from './files.ts'

export interface NodeChildOptions {
  readonly script: string
  readonly args: readonly string[]
  /** The complete environment. The child inherits only the Node options of `bin/tapeline`. */
  readonly env: NodeJS.ProcessEnv
  /**
   * The child appends its output to this file directly, so its log does not depend on this process.
   */
  readonly logFile: string
  /** Milliseconds between SIGTERM and SIGKILL at a stop. */
  readonly graceMs?: number
}

/**
 * Starts a script on the Node of this process, in a separate process group, which a terminal's
 * Ctrl-C does not reach. The child notices over an IPC channel when this process ends.
 */
export async function spawnNode(
  options: NodeChildOptions,
): Promise<{ child: ChildProcess; running: RunningProcess }> {
  const log = openSync(options.logFile, 'a')
  try {
    const child = spawn(process.execPath, ['--import', STOP_WITH_PARENT, options.script, ...options.args], {
      stdio: ['ignore', log, log, 'ipc'],
      detached: true,
      env: { ...NODE_ENVIRONMENT, ...compileCache(), ...options.env },
    })
    return { child, running: await runningProcess(child, options.graceMs) }
  } finally {
    closeSync(log)
  }
}

/** Node stores compiled code in a folder per version, below the configured one. */
function compileCache(): NodeJS.ProcessEnv {
  const folder = getCompileCacheDir()
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: dirname(folder) }
}
