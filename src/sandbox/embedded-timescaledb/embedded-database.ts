import type { ChildProcess } from 'node:child_process'
import { addAbortListener } from 'node:events'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { describeExit, type RunningProcess, spawnNode } from '../processes/child-process.ts'
import { displayPath, EMBEDDED_DATABASE } from '../processes/files.ts'

export type EmbeddedDatabaseMessage =
  | { readonly type: 'listening'; readonly url: string }
  | { readonly type: 'failed'; readonly message: string; readonly fix: string }

export interface EmbeddedDatabaseOptions {
  /** Holds data, password and lock. Created if missing. */
  readonly dataDir: string
  /** 0 means any free port. */
  readonly port: number
  /** The database's own log is appended to this file. */
  readonly logFile: string
  /** Called as soon as the process exists. */
  readonly onSpawned?: (database: RunningProcess) => void
  readonly signal?: AbortSignal
}

export interface EmbeddedDatabase extends RunningProcess {
  /** For `DATABASE_URL`; includes the password. */
  readonly url: string
}

/**
 * Starts TimescaleDB in a process that ends with this one. All connections share one backend.
 * @throws TapelineError `ENVIRONMENT` when the directory or the port is in use, or it cannot start
 */
export async function startEmbeddedDatabase(options: EmbeddedDatabaseOptions): Promise<EmbeddedDatabase> {
  const { child, running } = await spawnNode({
    script: EMBEDDED_DATABASE,
    args: [options.dataDir, String(options.port)],
    env: { PATH: process.env['PATH'] },
    logFile: options.logFile,
  })
  options.onSpawned?.(running)
  using _ = options.signal && addAbortListener(options.signal, running.kill)
  try {
    const url = await listening(child, running, options)
    return { ...running, url }
  } catch (error) {
    running.kill()
    await running.exited
    throw error
  }
}

async function listening(
  child: ChildProcess,
  running: RunningProcess,
  options: EmbeddedDatabaseOptions,
): Promise<string> {
  const message = new Promise<EmbeddedDatabaseMessage>((resolve) =>
    child.once('message', (value) => resolve(parse(value))),
  )
  const ended = running.exited.then((exit) => ({
    type: 'failed' as const,
    message: `it ended (${describeExit(exit)})`,
    fix: `See ${displayPath(options.logFile)}.`,
  }))
  const first = await Promise.race([message, ended])
  options.signal?.throwIfAborted()
  if (first.type === 'listening') return first.url
  throw new TapelineError('ENVIRONMENT', `The embedded database cannot start: ${first.message}`, {
    fix: first.fix,
  })
}

function parse(value: unknown): EmbeddedDatabaseMessage {
  const field = (name: string) => String(Reflect.get(Object(value), name) ?? '')
  if (field('type') === 'listening') return { type: 'listening', url: field('url') }
  return { type: 'failed', message: field('message'), fix: field('fix') }
}
