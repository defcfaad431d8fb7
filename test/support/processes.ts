import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { until } from './wait-for.ts'

const TAPELINE = resolve(import.meta.dirname, '../../bin/tapeline')
/** Longer than any command should take, on a busy machine too. */
const DEFAULT_TIMEOUT_MS = 120_000

export type RunningCommand = ReturnType<typeof startTapeline>

/**
 * Starts `bin/tapeline` like a user, in a separate process. End it with `await using` or `kill()`.
 *
 * @param options `env`: settings, added to PATH, HOME and the test run's variables; nothing else of
 *   the caller's environment. `cwd`: default: a new empty folder, removed at the end, so that no
 *   `.env` is read and no files remain
 */
export function startTapeline(
  args: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>>; readonly cwd?: string } = {},
) {
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

  /** Every failure shows the command's output so far. */
  const fail = (what: string, cause?: unknown) =>
    new Error(`${what}. Output of ${title}:\n${output}`, { cause })
  const waitFor = async <Result>(what: string, timeoutMs: number, condition: () => Result) => {
    try {
      return await until(what, condition, timeoutMs)
    } catch (error) {
      throw fail(`Waited ${timeoutMs} ms for ${what}`, error)
    }
  }
  /** Waits until it has exited and its output is complete. */
  const exit = async (timeoutMs = DEFAULT_TIMEOUT_MS) => {
    await waitFor('its end', timeoutMs, () => hasClosed(child))
    return { code: child.exitCode, signal: child.signalCode }
  }
  /** Sends SIGKILL unless it has exited, and waits for the exit. */
  const kill = async () => {
    child.kill('SIGKILL')
    await closed
    if (ownFolder !== undefined) rmSync(ownFolder, { recursive: true, force: true })
  }
  return {
    pid: child.pid,
    cwd,
    /** Its output so far, standard output and error interleaved. */
    output: () => output,
    /** Waits for a matching line of the output. Fails at once if the command exits without one. */
    async waitForLine(pattern: RegExp, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<RegExpExecArray> {
      const found = await waitFor(`a line like ${pattern}`, timeoutMs, () => {
        const ended = hasClosed(child)
        const match = output.split('\n').map((line) => pattern.exec(line))
        return match.find((line) => line !== null) ?? (ended ? 'ended' : undefined)
      })
      if (found === 'ended') throw fail(`It exited without a line like ${pattern}`)
      return found
    },
    hasExited: () => child.exitCode !== null || child.signalCode !== null,
    signal(signal: NodeJS.Signals) {
      if (!child.kill(signal)) throw fail(`It had exited before ${signal}`)
    },
    exit,
    /** Waits for the exit and fails, with the output, unless the exit code is this one. */
    async assertExit(code: number, timeoutMs?: number) {
      const ended = await exit(timeoutMs)
      if (ended.code !== code) throw fail(`It exited with ${ended.signal ?? ended.code}, expected ${code}`)
    },
    kill,
    [Symbol.asyncDispose]: kill,
  }
}

/** Waits for closed pipes, not only for the exit: they may still contain output. */
function hasClosed(child: ChildProcess): boolean {
  const exited = child.exitCode !== null || child.signalCode !== null
  return exited && child.stdout?.readableEnded !== false && child.stderr?.readableEnded !== false
}

/** Keeps a developer's KAFKA_BROKERS or DATABASE_URL out of the tests. */
function inherited(): NodeJS.ProcessEnv {
  const kept = /^(PATH|HOME|TMPDIR|LANG|LC_.*|XDG_.*|JAVA_HOME|.*_proxy|.*_PROXY|TAPELINE_.*)$/
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => kept.test(name)))
}
