import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'
import { parseJson } from '../../foundation/runtime/outside-text.ts'

const POLL_MS = 200
const CHUNK_BYTES = 64 * 1024
const KEPT_PROBLEMS = 20

/** A line of a child's log that the user should see. */
export interface LogProblem {
  readonly level: 'warn' | 'error'
  readonly text: string
  /** The code of a TapelineError, if the line has one. */
  readonly code: string | null
  readonly fix: string
  /** Last message of a command, which ends because of this problem. */
  readonly final: boolean
}

const LAST_WORDS = 'tapeline: '

/** Follows the log file that a child writes, and reports its warnings and errors. */
export class LogFollower {
  readonly path: string
  readonly #onProblem: (problem: LogProblem) => void
  readonly #buffer = Buffer.alloc(CHUNK_BYTES)
  #position = 0
  #rest = ''
  readonly #timer: NodeJS.Timeout
  #problems: LogProblem[] = []

  constructor(path: string, onProblem: (problem: LogProblem) => void) {
    this.path = path
    this.#onProblem = onProblem
    this.#timer = setInterval(() => this.read(), POLL_MS)
  }

  /** The latest problems since the last `forget`, oldest first. */
  get problems(): readonly LogProblem[] {
    return this.#problems
  }

  /** Drops the problems of the previous process when a new one begins. */
  forget(): void {
    this.read()
    this.#problems = []
  }

  read(): void {
    if (!existsSync(this.path)) return
    const file = openSync(this.path, 'r')
    try {
      const { size } = fstatSync(file)
      while (this.#position < size) {
        const bytes = readSync(file, this.#buffer, 0, CHUNK_BYTES, this.#position)
        if (bytes === 0) return
        this.#position += bytes
        this.#take(this.#buffer.toString('utf8', 0, bytes))
      }
    } finally {
      closeSync(file)
    }
  }

  close(): void {
    clearInterval(this.#timer)
    this.read()
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      const last = this.#problems.at(-1)
      if (last?.final === true && line.startsWith('  ')) {
        this.#problems.splice(-1, 1, { ...last, fix: line.trim() })
        continue
      }
      const problem = parseLogLine(line)
      if (problem === null) continue
      this.#problems.push(problem)
      if (this.#problems.length > KEPT_PROBLEMS) this.#problems.shift()
      this.#onProblem(problem)
    }
  }
}

/** Parses the problem of a log line: JSON of level warn or error, or certain plain text; or null. */
export function parseLogLine(line: string): LogProblem | null {
  const trimmed = line.trim()
  const record = trimmed.startsWith('{') ? parseJson(trimmed) : undefined
  // Not a line of our logger.
  if (record === undefined) return plainProblem(trimmed)
  const level = Number(Reflect.get(Object(record), 'level'))
  if (!(level >= 40)) return null
  const error: unknown = Reflect.get(Object(record), 'err')
  const field = (of: unknown, name: string) => {
    const value: unknown = Reflect.get(Object(of), name)
    return typeof value === 'string' ? value : ''
  }
  const message = withoutStops(field(record, 'msg'))
  const cause = withoutStops(field(error, 'message'))
  return {
    level: level >= 50 ? 'error' : 'warn',
    text: cause === '' || message.includes(cause) ? message : `${message}: ${cause}`,
    code: field(record, 'code') || field(error, 'code') || null,
    fix: field(record, 'fix') || field(error, 'fix'),
    final: false,
  }
}

/** Removes full stops: the logger joins the messages of an error and its causes unchanged. */
function withoutStops(text: string): string {
  return text.replaceAll(/\.(?=:|$)/g, '')
}

/** Plain text is a problem only if it is the last message of a command or belongs to a crash. */
function plainProblem(line: string): LogProblem | null {
  const final = line.startsWith(LAST_WORDS)
  if (!final && !/^(Uncaught )?\w*(Error|Exception)\b.*:/.test(line)) return null
  return { level: 'error', text: final ? line.slice(LAST_WORDS.length) : line, code: null, fix: '', final }
}
