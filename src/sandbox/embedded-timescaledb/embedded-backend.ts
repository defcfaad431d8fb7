import { isDeepStrictEqual } from 'node:util'
import {
  bodiesIn,
  closeStatement,
  errorText,
  type FrontendMessage,
  query,
  queryText,
  renameStatement,
  sync,
  withoutCopyIn,
} from './postgres-wire.ts'

/** Executes one whole frontend message on the database. Returns the backend's messages unchanged. */
export type ExecuteMessage = (message: FrontendMessage) => Promise<Buffer>

/** Settings of every session, regardless of the previous session. */
const BASELINE = `SET client_min_messages = notice; SET search_path TO public; SET timescaledb.telemetry_level = off;
SET tapeline.copy = off`

/**
 * Shares one PostgreSQL backend among many connections. A session acquires it with its first
 * message and keeps it until the backend is idle outside a transaction, so transactions never mix.
 * Prepared statements are renamed, and settings made by SET are applied again when the session
 * changes.
 * Not kept per session, since no client needs it: temporary tables, LISTEN, session-level advisory
 * locks, SET in a transaction or through a prepared statement.
 */
export class SharedBackend {
  readonly execute: ExecuteMessage
  readonly #waiting: Array<() => void> = []
  #held = false
  #sessions = 0
  /** Null when they are unknown, after a setting was refused. */
  #appliedSettings: readonly string[] | null = []

  constructor(execute: ExecuteMessage) {
    this.execute = execute
  }

  /**
   * Call it once, before the first session. Loads TimescaleDB, since no postmaster preloads it:
   * without it a reopened hypertable refuses inserts, and DROP TABLE does not drop its chunks.
   */
  async prepare(): Promise<void> {
    await this.#run("LOAD 'timescaledb'")
    await this.#run(BASELINE)
  }

  /** Runs a statement of the server between those of the sessions. Rejects when it fails. */
  async maintain(sql: string): Promise<Buffer> {
    await this.acquire(this.#appliedSettings ?? [])
    try {
      return await this.#run(sql)
    } finally {
      this.release()
    }
  }

  /** @param settings SQL to run whenever the session acquires the backend after another one */
  openSession(settings: readonly string[] = []): BackendSession {
    this.#sessions += 1
    return new BackendSession(this, `s${this.#sessions}_`, settings)
  }

  /** Rejects, and does not hold the backend, when a setting is refused. */
  async acquire(settings: readonly string[]): Promise<void> {
    if (this.#held) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#held = true
    if (isDeepStrictEqual(settings, this.#appliedSettings)) return
    try {
      this.#appliedSettings = null
      for (const sql of ['RESET ALL', BASELINE, ...settings]) await this.#run(sql)
      this.#appliedSettings = [...settings]
    } catch (error) {
      this.release()
      throw error
    }
  }

  release(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#held = false
    else next()
  }

  settingsChanged(settings: readonly string[]): void {
    this.#appliedSettings = [...settings]
  }

  async #run(sql: string): Promise<Buffer> {
    const output = await this.execute(query(sql))
    const failure = errorText(output)
    if (failure !== null) throw new Error(`${sql}: ${failure}`)
    return output
  }
}

/** The view of one connection on the shared backend. Calls must not overlap. */
export class BackendSession {
  readonly #backend: SharedBackend
  readonly #prefix: string
  readonly #statements = new Set<string>()
  #settings: string[]
  #holding = false
  #abandoned = false

  constructor(backend: SharedBackend, prefix: string, settings: readonly string[]) {
    this.#backend = backend
    this.#prefix = prefix
    this.#settings = [...settings]
  }

  /** Whether others wait for this session: in a transaction, or between a Parse and its Sync. */
  get holdsBackend(): boolean {
    return this.#holding
  }

  /** Returns the answer; empty where the protocol has none. Rejects if the database is broken. */
  async execute(message: FrontendMessage): Promise<Buffer> {
    if (!this.#holding) {
      await this.#backend.acquire(this.#settings)
      this.#holding = true
    }
    if (this.#abandoned) return Buffer.alloc(0)
    const renamed = renameStatement(withoutCopyIn(message), this.#prefix)
    if (renamed.opened !== null) this.#statements.add(renamed.opened)
    const output = await this.#backend.execute(renamed.message)
    this.#observe(message, output)
    return output
  }

  /** The client has disconnected: its waiting messages are not executed. */
  abandon(): void {
    this.#abandoned = true
  }

  /** Rolls back, drops the session's state in the backend, and releases the backend. */
  async close(): Promise<void> {
    this.#abandoned = true
    if (!this.#holding && this.#statements.size === 0) return
    if (!this.#holding) await this.#backend.acquire(this.#settings)
    try {
      const isIdle = isIdleAfter(await this.#backend.execute(sync()))
      const rollback = isIdle ? [] : [query('ROLLBACK')]
      const closing = [...this.#statements].map(closeStatement)
      for (const message of [...rollback, ...closing, sync()]) await this.#backend.execute(message)
    } finally {
      this.#holding = false
      this.#backend.release()
    }
  }

  #observe(message: FrontendMessage, output: Buffer): void {
    if (!isIdleAfter(output)) return
    this.#rememberSettings(message, output)
    this.#holding = false
    this.#backend.release()
  }

  #rememberSettings(message: FrontendMessage, output: Buffer): void {
    const sql = queryText(message)
    if (sql === null) return
    const tags = Array.from(bodiesIn(output, 'C'), (body) => body.toString('utf8', 0, body.length - 1))
    if (tags.includes('DISCARD ALL') || tags.includes('RESET')) this.#settings = []
    else if (tags.length > 0 && tags.every((tag) => tag === 'SET')) this.#settings.push(sql)
    else return
    this.#backend.settingsChanged(this.#settings)
  }
}

/** Whether the answer ends with the backend outside a transaction; false when more follows. */
function isIdleAfter(output: Buffer): boolean {
  return [...bodiesIn(output, 'Z')].at(-1)?.toString() === 'I'
}
