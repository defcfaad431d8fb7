import type { Session } from '../../src/foundation/store/postgres.ts'
import { SQLSTATE } from '../../src/foundation/store/sql-state.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { LifeClock } from '../support/life-clock.ts'

/** The state of the server that sessions depend on. */
export interface Server {
  readonly isAway: boolean
  /** Changes at each restart, which ends the sessions. */
  readonly incarnation: number
  /** A standby, or a server in recovery. */
  readonly isInRecovery: boolean
  /** `default_transaction_read_only`; a session keeps the value from its start. */
  readonly isReadOnlyByDefault: boolean
  /** Sessions are reused after any error, and BEGIN leaves them read-only. */
  readonly keepsSessions: boolean
}

/** An error as PostgreSQL or, without a code, a broken connection reports it. */
export function failure(code: string | null): Error {
  const error = new Error(code === null ? 'Connection terminated unexpectedly' : `failed with ${code}`)
  return code === null ? error : Object.assign(error, { code })
}

/** The sessions of one process: opened on demand, and reused until closed. */
export class MemorySessions {
  readonly #server: Server
  readonly #life: LifeClock
  readonly #random: Random
  readonly #free: MemorySession[] = []

  constructor(server: Server, life: LifeClock, random: Random) {
    this.#server = server
    this.#life = life
    this.#random = random
  }

  async acquire(): Promise<MemorySession> {
    const free = this.#free.pop()
    if (free !== undefined) return free
    await this.#life.wait(this.#random.between(1, 20))
    if (this.#server.isAway) throw failure(null)
    return new MemorySession(this.#server, this.#life, (session) => this.#free.push(session))
  }
}

export class MemorySession implements Session {
  readonly #server: Server
  readonly #life: LifeClock
  readonly #giveBack: (session: MemorySession) => void
  readonly #incarnation: number
  readonly #isReadOnly: boolean
  /** Whether the open transaction may write. */
  #mayWrite = false

  constructor(server: Server, life: LifeClock, giveBack: (session: MemorySession) => void) {
    this.#server = server
    this.#life = life
    this.#giveBack = giveBack
    this.#incarnation = server.incarnation
    this.#isReadOnly = server.isReadOnlyByDefault
  }

  /** Why no statement can run in it; null if one can. @param writes whether the statement changes data */
  obstacle(writes: boolean): Error | null {
    if (this.#server.isAway) return failure(null)
    if (this.#server.incarnation !== this.#incarnation) return failure('57P01')
    return writes && !this.#mayWrite ? failure(SQLSTATE.readOnlyTransaction) : null
  }

  async run(_limitMs: number, text: string): Promise<{ rows: never[]; rowCount: number }> {
    await this.#life.wait(1)
    const obstacle = this.obstacle(false)
    if (obstacle !== null) throw obstacle
    if (text.startsWith('BEGIN')) this.#begin(text)
    return { rows: [], rowCount: 0 }
  }

  copyIn(): Promise<number> {
    return Promise.reject(failure(SQLSTATE.featureNotSupported))
  }

  async cancelOnAbort(): Promise<() => Promise<void>> {
    return async () => {}
  }

  release(): void {
    this.#giveBack(this)
  }

  close(): void {
    if (this.#server.keepsSessions && this.#server.incarnation === this.#incarnation) this.#giveBack(this)
  }

  #begin(text: string): void {
    const { isInRecovery, keepsSessions } = this.#server
    const isReadWrite = text.includes('READ WRITE') && !keepsSessions
    if (isReadWrite && isInRecovery) throw failure(SQLSTATE.featureNotSupported)
    this.#mayWrite = !isInRecovery && (isReadWrite || !this.#isReadOnly)
  }
}
