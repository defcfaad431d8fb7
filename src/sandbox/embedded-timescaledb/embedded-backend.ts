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

/**
 * Executes one whole frontend message on the database. Returns the backend's messages unchanged.
 */
export type ExecuteMessage = (message: FrontendMessage) => Promise<Buffer>

/** Settings of every session, regardless of the previous session. */
const BASELINE = `SET client_min_messages = notice; SET search_path TO public; SET timescaledb.telemetry_level = off;
SET tapeline.copy = off`

/**
 * Shares one PostgreSQL backend among many connections, one at a time.
 *
 * A real server forks a backend per connection. The embedded database has only one, so a session
 * acquires it with its first message and keeps it until the backend is idle and outside a
 * transaction. Transactions never mix, and a reader waits for the writer before it. Other state of
 * the backend is kept per session: prepared statements are renamed, and settings made by SET are
 * applied again when the session changes.
 *
 * State that is not kept per session, since no client here needs it: temporary tables, LISTEN,
 * session-level advisory locks, SET in a transaction or through a prepared statement.
 */
export class SharedBackend {
  readonly #execute: ExecuteMessage
  readonly #waiting: Array<() => void> = []
  #held = false
  #sessions = 0
  /** Null when they are unknown, after a setting was refused. */
  #appliedSettings: readonly string[] | null = []

  constructor(execute: ExecuteMessage) {
    this.#execute = execute
  }

  /**
   * Applies the settings of every session. Call it once, before the first session.
   *
   * Loads TimescaleDB explicitly, since there is no postmaster to preload it. Without it a reopened
   * hypertable refuses inserts, and DROP TABLE does not drop its chunks.
   */
  async prepare(): Promise<void> {
    await this.#run("LOAD 'timescaledb'")
    await this.#run(BASELINE)
  }

  /** Runs a statement of the server between those of the sessions. Rejects when it fails. */
  async maintain(sql: string): Promise<Buffer> {
    await this.#acquire(this.#appliedSettings ?? [])
    try {
      return await this.#run(sql)
    } finally {
      this.#release()
    }
  }

  /**
   * @param settings SQL to run before the session's first statement, and whenever it acquires the
   *   backend again
   */
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

  /** Rejects, and does not hold the backend, when a setting is refused. */
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

  /** Hands the backend to the session that has waited longest. */
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

/** The view of one connection on the shared backend. Calls must not overlap. */
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

  /**
   * Whether other sessions wait for this one: it is in a transaction, or between a Parse and its
   * Sync.
   */
  get holdsBackend(): boolean {
    return this.#holding
  }

  /**
   * Executes one message. The answer is empty where the protocol has none. Rejects only when the
   * database is broken.
   */
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

  /** The client has disconnected: its waiting messages are not executed. */
  abandon(): void {
    this.#abandoned = true
  }

  /**
   * Rolls back an open transaction, drops the session's state in the backend, and releases the
   * backend.
   */
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

/** The transaction status at the end of an answer; null when more messages follow. */
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
