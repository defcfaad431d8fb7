import type { Clock } from '../../foundation/runtime/clock.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { Database } from '../../foundation/store/database.ts'
import type { PartView, StoredView } from './page/snapshot.ts'
import { readStored } from './stored.ts'

/** The database is polled less often than the services, and even less while nobody watches. */
const EVERY_MS = 2000
const UNWATCHED_EVERY_MS = 15_000
/** Wait for the database before a snapshot is shown without its answer. */
const WAIT_MS = 500
/** After this long the database is reported as not answering. */
const SILENT_MS = 3000

/** Polls the database for the pages and keeps its last answer. A query that hangs delays no page. */
export class StoredWatch {
  readonly #database: Database
  readonly #clock: Clock
  #answer: StoredView | null = null
  /** Empty while the database answers. */
  #problem = ''
  #askedMs = Number.NEGATIVE_INFINITY
  #asking: Promise<void> | null = null

  constructor(database: Database, clock: Clock) {
    this.#database = database
    this.#clock = clock
  }

  /** Null before the first answer, and while the database does not answer. */
  get newest(): StoredView | null {
    return this.#problem === '' ? this.#answer : null
  }

  get part(): PartView {
    const reason = this.#problem
    return { name: 'database', url: '', health: reason === '' ? 'well' : 'away', reason, uptimeMs: null }
  }

  /** Queries the database when it is due, and waits briefly for the answer. Never rejects. */
  async look(symbols: readonly string[], isWatched: boolean): Promise<void> {
    const nowMs = this.#clock.monotonicMs()
    const everyMs = isWatched ? EVERY_MS : UNWATCHED_EVERY_MS
    if (this.#asking === null && nowMs - this.#askedMs >= everyMs) {
      this.#askedMs = nowMs
      this.#asking = this.#ask(symbols).finally(() => {
        this.#asking = null
      })
    }
    if (this.#asking === null) return
    const silentMs = nowMs - this.#askedMs
    if (silentMs > SILENT_MS) this.#problem = `has not answered for ${Math.floor(silentMs / 1000)} s`
    let cancel = () => {}
    const waited = new Promise<void>((resolve) => {
      cancel = this.#clock.schedule(WAIT_MS, resolve)
    })
    await Promise.race([this.#asking, waited])
    cancel()
  }

  async #ask(symbols: readonly string[]): Promise<void> {
    try {
      this.#answer = await readStored(this.#database, symbols)
      this.#problem = ''
    } catch (error) {
      this.#problem = `cannot be queried: ${describeError(error)}`
    }
  }
}
