import type { VirtualClock } from '../support/virtual-clock.ts'

/** A stream, or all streams, silent on the connections that were open at its beginning. */
export interface Stall {
  /** Null for all. */
  readonly stream: string | null
  /** Whether it holds back pings too. */
  readonly silent: boolean
  readonly healedBy: 'resubscribe' | 'reconnect'
  readonly sinceMs: number
  untilMs: number
  /** When it first and last swallowed a frame: undetectable while its symbol does not trade. */
  firstStruckMs: number | null
  lastStruckMs: number
  /** When ingestion resubscribed or reconnected because of it. */
  noticedAtMs: number | null
}

/** A process that has seen little more than a burst does not know yet how slow a stream is. */
const YOUNG_MS = 600_000

/** This many of the newest stalls may still be active. */
const ACTIVE = 5

/** The stalls of an exchange, and ingestion's reactions. */
export class Stalls {
  readonly all: Stall[] = []
  /** Needless resubscriptions, one sentence each. */
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

  /** The index of the stall that swallows a frame; null if none does. */
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

  /** Records a resubscription of a stream by a process of this age. */
  subscribedAnew(stream: string, ageMs: number): void {
    const nowMs = this.#clock.monotonicMs()
    const stall = this.all.findLast((one) => one.stream === stream && one.untilMs >= nowMs)
    if (stall === undefined) {
      const ended = this.all.some((one) => (one.stream ?? stream) === stream && nowMs - one.untilMs < 60_000)
      if (!ended && ageMs > YOUNG_MS)
        this.falseAlarms.push(`${stream} was needlessly resubscribed at ${nowMs}`)
      return
    }
    stall.noticedAtMs ??= nowMs
    if (stall.healedBy === 'resubscribe') stall.untilMs = nowMs
  }

  /**
   * Records the close of the last connection, opened at that time: the frames held back are known
   * to be missing.
   */
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
