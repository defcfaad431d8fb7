import type { VirtualClock } from '../support/virtual-clock.ts'

/** A stream, or all, that delivers nothing on the connections that were open when it began. */
export interface Stall {
  /** Null for all. */
  readonly stream: string | null
  /** Also pings are kept back. */
  readonly silent: boolean
  readonly healedBy: 'resubscribe' | 'reconnect'
  readonly sinceMs: number
  untilMs: number
  /** When it first and last swallowed a frame: nobody can notice it while its symbol does not trade. */
  firstStruckMs: number | null
  lastStruckMs: number
  /** When ingestion renewed the subscription or the connection because of it. */
  noticedAtMs: number | null
}

/** A process that has seen no more than a storm does not know yet how slow a stream is. */
const YOUNG_MS = 600_000

/** So many of the newest stalls may still hold. */
const ACTIVE = 5

/** The stalls of an exchange, and what ingestion did about them. */
export class Stalls {
  readonly all: Stall[] = []
  /** Streams that were subscribed anew although nothing was wrong with them, a sentence each. */
  readonly falseAlarms: string[] = []
  readonly #clock: VirtualClock

  constructor(clock: VirtualClock) {
    this.#clock = clock
  }

  begin(stall: Pick<Stall, 'stream' | 'silent' | 'healedBy'>, forMs: number): void {
    const nowMs = this.#clock.monotonicMs()
    this.all.push({
      ...stall,
      sinceMs: nowMs,
      untilMs: nowMs + forMs,
      firstStruckMs: null,
      lastStruckMs: nowMs,
      noticedAtMs: null,
    })
  }

  end(): void {
    const nowMs = this.#clock.monotonicMs()
    for (const stall of this.all) stall.untilMs = Math.min(stall.untilMs, nowMs)
  }

  /** The index of the stall that swallows a frame; null when none does. */
  strike(openedAtMs: number, stream: string): number | null {
    const at = this.#find(openedAtMs, (stall) => stall.stream === null || stall.stream === stream)
    const stall = this.all[at]
    if (stall === undefined) return null
    stall.lastStruckMs = this.#clock.monotonicMs()
    stall.firstStruckMs ??= stall.lastStruckMs
    return at
  }

  silencesPings(openedAtMs: number): boolean {
    return this.#find(openedAtMs, ({ stream, silent }) => stream === null && silent) >= 0
  }

  /** A stream's subscription was renewed, by a process of this age. */
  subscribedAnew(stream: string, ageMs: number): void {
    const nowMs = this.#clock.monotonicMs()
    const stall = this.all.findLast((one) => one.stream === stream && one.untilMs >= nowMs)
    if (stall === undefined) {
      const ended = this.all.some((one) => (one.stream ?? stream) === stream && nowMs - one.untilMs < 60_000)
      if (!ended && ageMs > YOUNG_MS)
        this.falseAlarms.push(`${stream} was subscribed anew at ${nowMs} without need`)
      return
    }
    stall.noticedAtMs ??= nowMs
    if (stall.healedBy === 'resubscribe') stall.untilMs = nowMs
  }

  /** The last connection has closed, which opened then: what it kept back is known to be missing. */
  silencedSince(openedAtMs: number): void {
    const nowMs = this.#clock.monotonicMs()
    for (const stall of this.all) {
      if (stall.untilMs > nowMs && stall.sinceMs >= openedAtMs) stall.noticedAtMs ??= nowMs
    }
  }

  #find(openedAtMs: number, matches: (stall: Stall) => boolean): number {
    const nowMs = this.#clock.monotonicMs()
    for (let at = this.all.length - 1; at >= Math.max(0, this.all.length - ACTIVE); at--) {
      const stall = this.all[at]
      if (stall !== undefined && stall.untilMs > nowMs && openedAtMs <= stall.sinceMs && matches(stall))
        return at
    }
    return -1
  }
}
