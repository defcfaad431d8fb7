import { setNewest } from '../../foundation/runtime/bounded-map.ts'
import type { Observed } from './verdict.ts'

/** How many events of one connection make a reset. */
const RESET_EVENTS = 3

/** No connection lags by so many ids of one symbol. */
const FAR_IDS = 100_000

/** Trades that were reordered have times that differ by less. */
export const REORDERED_MS = 60_000

/** Ids of one run of suspects differ by less. */
const RUN_IDS = 1000

/** Events whose copies are recognised. */
const KNOWN_MAX = 1000

/** Ids that are further below the last than this are far below. Young sequences have fewer ids than any lag. */
export function farIds(last: number): number {
  return Math.min(FAR_IDS, last / 2)
}

/**
 * Events under ids that were forwarded, later in time than all before them: the first of a new sequence, or second events
 * under their ids. Specification: S5, S6, S10.
 */
export class ResetEvidence<Event extends Observed> {
  /** By connection, at most two of each. */
  readonly #suspects = new Map<number, Event[]>()
  /** Events that were rejected, by what tells them apart. */
  readonly #known = new Map<string, true>()
  #second: Event[] = []

  /**
   * @param last the highest id forwarded
   * @param lastTimeMs the highest trade time seen
   * @param isTimed whether that time is of this id or of one above; without it, the id proves nothing by its own time
   * @returns `held`, or `reset` where three events of one connection show it; `second` or `duplicate` for what cannot begin
   *   a sequence, because a lag or a wrong time explains it. `released` suspects were refuted meanwhile
   */
  add(
    event: Event,
    last: number,
    lastTimeMs: number,
    isTimed: boolean,
  ): { kind: 'held' | 'reset' | 'second' | 'duplicate'; released: number } {
    const { connection, id, timeMs } = event
    const before = this.#suspects.get(connection) ?? []
    const identity = identityOf(event)
    if (before.some((one) => identityOf(one) === identity)) return { kind: 'duplicate', released: 0 }
    const begins = id < last - farIds(last) || (isTimed && timeMs > lastTimeMs + REORDERED_MS)
    const isOfRun = before.some((one) => Math.abs(id - one.id) < RUN_IDS)
    if (!begins && !isOfRun) return { kind: this.isNew(event) ? 'second' : 'duplicate', released: 0 }
    const released = this.#drop((one) => one.timeMs <= lastTimeMs)
    const suspects = [...(this.#suspects.get(connection) ?? []), event]
    this.#suspects.set(connection, suspects)
    return { kind: suspects.length < RESET_EVENTS || released > 0 ? 'held' : 'reset', released }
  }

  /**
   * The old sequence has continued with an event. Suspects that it refutes become second events: those that its connection
   * received before it, and those that are not later in time. Another connection may only lag.
   *
   * @returns how many
   */
  refute({ connection, timeMs, receiptMs = Number.POSITIVE_INFINITY }: Event): number {
    return this.#drop(
      (one) => one.timeMs <= timeMs || (one.connection === connection && (one.receiptMs ?? 0) < receiptMs),
    )
  }

  /** Removes and returns the suspects, with copies. */
  takeSuspects(): Event[] {
    const taken = [...this.#suspects.values()].flat()
    this.#suspects.clear()
    this.#known.clear()
    return taken
  }

  /** Each second event once, whichever connections brought it; gone after this. */
  takeSecond(): readonly Event[] {
    const taken = this.#second
    if (taken.length > 0) this.#second = []
    return taken
  }

  #drop(isRefuted: (suspect: Event) => boolean): number {
    if (this.#suspects.size === 0) return 0
    let dropped = 0
    for (const [connection, suspects] of this.#suspects) {
      const kept = suspects.filter((one) => !isRefuted(one))
      dropped += suspects.length - kept.length
      this.#second.push(...suspects.filter((one) => isRefuted(one) && this.isNew(one)))
      if (kept.length === 0) this.#suspects.delete(connection)
      else this.#suspects.set(connection, kept)
    }
    return dropped
  }

  /** False for an event that another connection has brought. Remembers the last thousand. */
  isNew(event: Event): boolean {
    const identity = identityOf(event)
    const isNew = !this.#known.has(identity)
    setNewest(this.#known, identity, true, KNOWN_MAX)
    return isNew
  }
}

/** Equal for the copies of an event that several connections bring. */
function identityOf({ id, timeMs, lastTradeId = -1 }: Observed): string {
  return `${id} ${timeMs} ${lastTradeId}`
}
