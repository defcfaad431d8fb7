import { closeSync, existsSync, fstatSync, openSync, readSync, renameSync } from 'node:fs'

const POLL_MS = 200
const CHUNK_BYTES = 64 * 1024
const KEPT_PROBLEMS = 20

/** A line of a child's log that a person should see. */
export interface LogProblem {
  readonly level: 'warn' | 'error'
  readonly text: string
  /** The code of a TapelineError, where the line carries one. */
  readonly code: string | null
  readonly fix: string
  /** The last words of a command: it ends because of this. */
  readonly final: boolean
}

const LAST_WORDS = 'tapeline: '

/** Keeps the log of the previous run as `.1`; the next one begins empty. */
export function rotateLog(path: string): void {
  if (existsSync(path)) renameSync(path, `${path}.1`)
}

/**
 * Reads what a child appends to its log file, and reports warnings and errors. The child writes the file itself, so
 * that nothing of it is lost when this process is.
 */
export class LogFollower {
  readonly #path: string
  readonly #onProblem: (problem: LogProblem) => void
  readonly #buffer = Buffer.alloc(CHUNK_BYTES)
  #position = 0
  #rest = ''
  #timer: NodeJS.Timeout | null = null
  #problems: LogProblem[] = []

  constructor(path: string, onProblem: (problem: LogProblem) => void) {
    this.#path = path
    this.#onProblem = onProblem
    this.#timer = setInterval(() => this.read(), POLL_MS)
  }

  /** What was reported since the last `forget`, oldest first; at most the latest few. */
  get problems(): readonly LogProblem[] {
    return this.#problems
  }

  /** A new process begins: what the one before it said no longer counts. */
  forget(): void {
    this.read()
    this.#problems = []
  }

  /** Reads what has come since. */
  read(): void {
    if (!existsSync(this.#path)) return
    const file = openSync(this.#path, 'r')
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

  /** Reads the rest and stops. */
  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
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

/**
 * The problem a log line tells of: a JSON line of level warn or error, or plain words (a command's last ones, or those
 * of a crash); null otherwise.
 */
export function parseLogLine(line: string): LogProblem | null {
  const trimmed = line.trim()
  if (!trimmed.startsWith('{')) return plainProblem(trimmed)
  let record: unknown
  try {
    record = JSON.parse(trimmed)
  } catch {
    // Not a line of our logger after all.
    return plainProblem(trimmed)
  }
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

/** The logger joins the messages of an error and its causes as they are, full stops and all. */
function withoutStops(text: string): string {
  return text.replaceAll(/\.(?=:|$)/g, '')
}

/** Plain words are no problem in themselves: only a command's last ones, and those of a crash. */
function plainProblem(line: string): LogProblem | null {
  const final = line.startsWith(LAST_WORDS)
  if (!final && !/^(Uncaught )?\w*(Error|Exception)\b.*:/.test(line)) return null
  return { level: 'error', text: final ? line.slice(LAST_WORDS.length) : line, code: null, fix: '', final }
}
