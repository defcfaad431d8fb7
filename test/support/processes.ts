import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { waitFor } from './wait-for.ts'

const TAPELINE = resolve(import.meta.dirname, '../../bin/tapeline')
const DEFAULT_TIMEOUT_MS = 15_000

export interface StartOptions {
  /** Settings, beside PATH, HOME and the test run's own variables; nothing else of the caller's environment. */
  readonly env?: Readonly<Record<string, string>>
  /** A fresh empty folder when not given, removed at the end, so that no `.env` is read and nothing is left. */
  readonly cwd?: string
}

/** A `tapeline` command that runs as a process of its own. End it with `await using` or `kill()`. */
export interface RunningCommand extends AsyncDisposable {
  readonly pid: number
  readonly cwd: string
  /** What it has written so far, standard output and error in the order they came. */
  output(): string
  /** Waits for a line of the output that matches. Fails at once when the command ends without one. */
  waitForLine(pattern: RegExp, timeoutMs?: number): Promise<RegExpExecArray>
  signal(signal: NodeJS.Signals): void
  /** Waits until it has ended; the output is complete then. */
  exit(timeoutMs?: number): Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  /** Waits for the end and fails, with the output, unless the exit code is this one. */
  assertExit(code: number, timeoutMs?: number): Promise<void>
  /** SIGKILL unless it has ended, and waits for the end. */
  kill(): Promise<void>
}

/** Starts `bin/tapeline` with these arguments, as a person would. */
export function startTapeline(args: readonly string[], options: StartOptions = {}): RunningCommand {
  const ownFolder = options.cwd === undefined ? mkdtempSync(join(tmpdir(), 'tapeline-cwd-')) : undefined
  const cwd = options.cwd ?? ownFolder ?? tmpdir()
  const title = `tapeline ${args.join(' ')}`
  const env = { ...inherited(), ...options.env }
  const child = spawn(TAPELINE, [...args], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  if (child.pid === undefined) throw new Error(`${TAPELINE} cannot be started`)
  const closed = new Promise<void>((done) => child.once('close', () => done()))
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8')
    stream.on('data', (text: string) => {
      output += text
    })
  }

  /** Every failure shows what the command had said by then. */
  const fail = (what: string, cause?: unknown) =>
    new Error(`${what}. Output of ${title}:\n${output}`, { cause })
  const until = async <Result>(what: string, timeoutMs: number, condition: () => Result) => {
    try {
      return await waitFor(condition, { timeoutMs, what })
    } catch (error) {
      throw fail(`Waited ${timeoutMs} ms for ${what}`, error)
    }
  }
  const exit = async (timeoutMs = DEFAULT_TIMEOUT_MS) => {
    await until('its end', timeoutMs, () => hasClosed(child))
    return { code: child.exitCode, signal: child.signalCode }
  }
  const kill = async () => {
    child.kill('SIGKILL')
    await closed
    if (ownFolder !== undefined) rmSync(ownFolder, { recursive: true, force: true })
  }
  return {
    pid: child.pid,
    cwd,
    output: () => output,
    async waitForLine(pattern, timeoutMs = DEFAULT_TIMEOUT_MS) {
      const found = await until(`a line like ${pattern}`, timeoutMs, () => {
        const ended = hasClosed(child)
        const match = output.split('\n').map((line) => pattern.exec(line))
        return match.find((line) => line !== null) ?? (ended ? 'ended' : undefined)
      })
      if (found === 'ended') throw fail(`It ended without a line like ${pattern}`)
      return found
    },
    signal(signal) {
      if (!child.kill(signal)) throw fail(`It had ended before ${signal}`)
    },
    exit,
    async assertExit(code, timeoutMs) {
      const ended = await exit(timeoutMs)
      if (ended.code !== code) throw fail(`It ended with ${ended.signal ?? ended.code}, expected ${code}`)
    },
    kill,
    [Symbol.asyncDispose]: kill,
  }
}

/** Closed, and not only exited: the pipes may still hold the last words. */
function hasClosed(child: ChildProcess): boolean {
  const exited = child.exitCode !== null || child.signalCode !== null
  return exited && child.stdout?.readableEnded !== false && child.stderr?.readableEnded !== false
}

/** A developer's own KAFKA_BROKERS or DATABASE_URL must not reach a test. */
function inherited(): NodeJS.ProcessEnv {
  const kept = /^(PATH|HOME|TMPDIR|LANG|LC_.*|XDG_.*|JAVA_HOME|.*_proxy|.*_PROXY|TAPELINE_.*)$/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => kept.test(name)))
}
