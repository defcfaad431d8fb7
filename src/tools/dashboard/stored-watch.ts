import type { Clock } from '../../foundation/runtime/clock.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { Database } from '../../foundation/store/database.ts'
import type { PartView, StoredView } from './page/snapshot.ts'
import { readStored } from './stored.ts'

/** The services are asked all the time, which costs them little; the database seldom while nobody looks. */
const EVERY_MS = 2000
const UNWATCHED_EVERY_MS = 15_000
/** What the database says is waited for so long before what the services say is shown without it. */
const WAIT_MS = 500
/** Then it is told that it does not answer. */
const SILENT_MS = 3000

/** Asks the database for the pages, and knows what it last said; one that hangs holds up nobody. */
export class StoredWatch {
  readonly #database: Database
  readonly #clock: Clock
  #answer: StoredView | null = null
  /** Empty while it answers. */
  #problem = ''
  #askedMs = Number.NEGATIVE_INFINITY
  #asking: Promise<void> | null = null

  constructor(database: Database, clock: Clock) {
    this.#database = database
    this.#clock = clock
  }

  /** Null before the first answer, and while it does not answer. */
  get newest(): StoredView | null {
    return this.#problem === '' ? this.#answer : null
  }

  get part(): PartView {
    const reason = this.#problem
    return { name: 'database', url: '', health: reason === '' ? 'well' : 'away', reason, uptimeMs: null }
  }

  /**
   * Asks when it is time, and waits a little for the answer. Does not reject.
   *
   * @param isWatched somebody looks on
   */
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
      this.#problem = `cannot be asked: ${describeError(error)}`
    }
  }
}
