import {
  backendMessages,
  closeStatement,
  errorText,
  type FrontendMessage,
  query,
  queryText,
  renameStatement,
  sync,
  type TransactionStatus,
  withoutCopyIn,
} from './postgres-wire.ts'

/** Runs one whole frontend message on the database and answers with the backend's messages, as they came. */
export type ExecuteMessage = (message: FrontendMessage) => Promise<Buffer>

/** Settings that hold for every session, whatever the one before it has set. */
const BASELINE = `SET client_min_messages = notice; SET search_path TO public; SET timescaledb.telemetry_level = off`

/**
 * One PostgreSQL backend shared by many connections, one at a time.
 *
 * A real server forks a backend for each connection; the embedded one has a single backend, so a session gets it
 * with its first message and keeps it until the backend is idle and outside a transaction: transactions never
 * mix, and a reader waits for the writer before it. What a backend remembers beyond that is kept apart per session:
 * prepared statements are renamed, and settings made by SET are applied again when the backend changes hands.
 *
 * Not kept apart, because nothing here needs it: temporary tables, LISTEN, session-level advisory locks, SET in a
 * transaction or through a prepared statement.
 */
export class SharedBackend {
  readonly #execute: ExecuteMessage
  readonly #waiting: Array<() => void> = []
  #held = false
  #sessions = 0
  /** Null when they are not known, after one was refused. */
  #appliedSettings: readonly string[] | null = []

  constructor(execute: ExecuteMessage) {
    this.#execute = execute
  }

  /**
   * Applies what holds for every session. To be called once, before the first session.
   *
   * TimescaleDB is loaded by hand: there is no postmaster to preload it, and without it a reopened hypertable
   * refuses inserts, and a DROP TABLE leaves its chunks behind.
   */
  async prepare(): Promise<void> {
    await this.#run("LOAD 'timescaledb'")
    await this.#run(BASELINE)
  }

  /** Runs a statement of the server's own, between those of the sessions. Rejects when it fails. */
  async maintain(sql: string): Promise<Buffer> {
    await this.#acquire(this.#appliedSettings ?? [])
    try {
      return await this.#run(sql)
    } finally {
      this.#release()
    }
  }

  /** @param settings SQL to run before the session's first statement, and whenever the backend comes back to it */
  openSession(settings: readonly string[] = []): BackendSession {
    this.#sessions += 1
    return new BackendSession(`s${this.#sessions}_`, settings, {
      acquire: (settings) => this.#acquire(settings),
      release: () => this.#release(),
      execute: this.#execute,
      settingsChanged: (settings) => {
        this.#appliedSettings = [...settings]
      },
    })
  }

  /** Rejects, and holds nothing, when one of the settings is refused. */
  async #acquire(settings: readonly string[]): Promise<void> {
    if (this.#held) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    this.#held = true
    if (sameTexts(settings, this.#appliedSettings)) return
    try {
      for (const sql of ['RESET ALL', BASELINE]) await this.#run(sql)
      this.#appliedSettings = []
      for (const sql of settings) await this.#run(sql)
      this.#appliedSettings = [...settings]
    } catch (error) {
      this.#appliedSettings = null
      this.#release()
      throw error
    }
  }

  /** Hands the backend to the session that has waited longest; it stays held in between. */
  #release(): void {
    const next = this.#waiting.shift()
    if (next === undefined) this.#held = false
    else next()
  }

  async #run(sql: string): Promise<Buffer> {
    const output = await this.#execute(query(sql))
    const failure = errorText(output)
    if (failure !== null) throw new Error(`${sql}: ${failure}`)
    return output
  }
}

interface Access {
  acquire(settings: readonly string[]): Promise<void>
  release(): void
  readonly execute: ExecuteMessage
  settingsChanged(settings: readonly string[]): void
}

/** What one connection sees of the shared backend. Its calls must not overlap. */
export class BackendSession {
  readonly #prefix: string
  readonly #access: Access
  readonly #statements = new Set<string>()
  #settings: string[]
  #holding = false
  #status: TransactionStatus = 'I'
  #abandoned = false

  constructor(prefix: string, settings: readonly string[], access: Access) {
    this.#prefix = prefix
    this.#settings = [...settings]
    this.#access = access
  }

  /** Whether other sessions wait for this one: it is in a transaction, or between a Parse and its Sync. */
  get holdsBackend(): boolean {
    return this.#holding
  }

  /** Runs one message; the answer is empty where the protocol has none. Rejects only when the database is broken. */
  async execute(message: FrontendMessage): Promise<Buffer> {
    if (!this.#holding) {
      await this.#access.acquire(this.#settings)
      this.#holding = true
    }
    if (this.#abandoned) return Buffer.alloc(0)
    const renamed = renameStatement(withoutCopyIn(message), this.#prefix)
    if (renamed.opened !== null) this.#statements.add(renamed.opened)
    const output = await this.#access.execute(renamed.message)
    this.#observe(message, output)
    return output
  }

  /** The client has gone: what it still waits for is not run. */
  abandon(): void {
    this.#abandoned = true
  }

  /** Rolls back what is open, forgets what the backend remembers of this session, and lets go of it. */
  async close(): Promise<void> {
    this.#abandoned = true
    if (!this.#holding && this.#statements.size === 0) return
    if (!this.#holding) await this.#access.acquire(this.#settings)
    try {
      const closing = [...this.#statements].map(closeStatement)
      let status = lastStatus(await this.#access.execute(sync())) ?? this.#status
      if (status !== 'I') status = lastStatus(await this.#access.execute(query('ROLLBACK'))) ?? status
      for (const message of [...closing, sync()]) await this.#access.execute(message)
    } finally {
      this.#holding = false
      this.#access.release()
    }
  }

  #observe(message: FrontendMessage, output: Buffer): void {
    const status = lastStatus(output)
    if (status === null) return
    this.#status = status
    if (status !== 'I') return
    this.#rememberSettings(message, output)
    this.#holding = false
    this.#access.release()
  }

  #rememberSettings(message: FrontendMessage, output: Buffer): void {
    const sql = queryText(message)
    if (sql === null) return
    const tags = commandTags(output)
    if (tags.includes('DISCARD ALL') || tags.includes('RESET')) this.#settings = []
    else if (tags.length > 0 && tags.every((tag) => tag === 'SET')) this.#settings.push(sql)
    else return
    this.#access.settingsChanged(this.#settings)
  }
}

/** What the backend says of its transaction at the end of an answer; null when the answer is not the last. */
function lastStatus(output: Buffer): TransactionStatus | null {
  let status: TransactionStatus | null = null
  for (const { type, start } of backendMessages(output)) {
    if (type !== 'Z') continue
    const letter = String.fromCharCode(output[start + 5] ?? 0)
    status = letter === 'T' || letter === 'E' ? letter : 'I'
  }
  return status
}

function commandTags(output: Buffer): string[] {
  const tags: string[] = []
  for (const { type, start, end } of backendMessages(output)) {
    if (type === 'C') tags.push(output.toString('utf8', start + 5, end - 1))
  }
  return tags
}

function sameTexts(left: readonly string[], right: readonly string[] | null): boolean {
  return right !== null && left.length === right.length && left.every((text, i) => text === right[i])
}
