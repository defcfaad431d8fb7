import { setNewest } from '../../foundation/runtime/bounded-map.ts'
import type { Observed } from './verdict.ts'

/** So many events of one connection prove a reset. */
const RESET_EVENTS = 3

/** No connection lags by so many ids of one symbol. */
const FAR_IDS = 100_000

/** Reordered trades differ in time by less. */
export const REORDERED_MS = 60_000

/** Ids of one run of suspects differ by less. */
const RUN_IDS = 1000

/** Maximum events whose copies are recognised. */
const KNOWN_MAX = 1000

/** Returns how far below the last an id must be. Young sequences have fewer ids than any lag. */
export function farIds(last: number): number {
  return Math.min(FAR_IDS, last / 2)
}

/**
 * Collects events whose id was forwarded already, but that are later in time than all before them.
 * They are the first of a new sequence, or second events under their ids. Specification: S5, S6,
 * S10.
 */
export class ResetEvidence<Event extends Observed> {
  readonly #ofRanges: boolean
  /** By connection, at most two of each. */
  readonly #suspects = new Map<number, Event[]>()
  /** Identities of rejected events. */
  readonly #known = new Map<string, true>()
  #second: Event[] = []

  /** @param ofRanges connections may cut ranges differently, so no event is a second one under its id */
  constructor(ofRanges = false) {
    this.#ofRanges = ofRanges
  }

  /**
   * @param last the highest id forwarded
   * @param lastTimeMs the highest trade time seen
   * @param isTimed whether that time belongs to this id or a higher one; if not, the id's time
   *   proves nothing
   * @returns `held`; `reset` if three events of one connection prove it; `second` or `duplicate` if
   *   a lag or a wrong time explains the event. `released`: the number of suspects refuted
   *   meanwhile
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
    if (!begins && !isOfRun)
      return { kind: !this.#ofRanges && this.isNew(event) ? 'second' : 'duplicate', released: 0 }
    const released = this.#drop((one) => one.timeMs <= lastTimeMs)
    const suspects = [...(this.#suspects.get(connection) ?? []), event]
    this.#suspects.set(connection, suspects)
    return { kind: suspects.length < RESET_EVENTS || released > 0 ? 'held' : 'reset', released }
  }

  /**
   * Refutes suspects, because the old sequence has continued with an event. Refuted are those that
   * its connection received before it and those not later in time; another connection may only lag.
   * They become second events.
   * @returns how many
   */
  refute({ connection, timeMs, receiptMs = Number.POSITIVE_INFINITY }: Event): number {
    return this.#drop(
      (one) => one.timeMs <= timeMs || (one.connection === connection && (one.receiptMs ?? 0) < receiptMs),
    )
  }

  /** Removes and returns the suspects, including copies. */
  takeSuspects(): Event[] {
    const taken = [...this.#suspects.values()].flat()
    this.#suspects.clear()
    this.#known.clear()
    return taken
  }

  /** Removes and returns the second events, each once, whichever connections delivered it. */
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
      if (!this.#ofRanges) this.#second.push(...suspects.filter((one) => isRefuted(one) && this.isNew(one)))
      if (kept.length === 0) this.#suspects.delete(connection)
      else this.#suspects.set(connection, kept)
    }
    return dropped
  }

  /** Whether no other connection has delivered the event. Remembers the last thousand. */
  isNew(event: Event): boolean {
    const identity = identityOf(event)
    const isNew = !this.#known.has(identity)
    setNewest(this.#known, identity, true, KNOWN_MAX)
    return isNew
  }
}

/** Equal for copies of an event from several connections. */
function identityOf({ id, timeMs, lastTradeId = -1 }: Observed): string {
  return `${id} ${timeMs} ${lastTradeId}`
}
