import type { VirtualClock } from '../support/virtual-clock.ts'

/** A step back by less is followed by one microsecond after the other. */
export const STEP_LIMIT_MS = 1000

/** How the wall clock was set for a while. True time, milliseconds since the Unix epoch. */
export interface ClockSetting {
  readonly sinceMs: number
  untilMs: number
  readonly aheadMs: number
}

/** The wall clock of the machine that ingestion runs on: the true time, and how far it is ahead of that. */
export class WallClock {
  readonly settings: ClockSetting[] = [
    { sinceMs: Number.NEGATIVE_INFINITY, untilMs: Number.POSITIVE_INFINITY, aheadMs: 0 },
  ]
  readonly #clock: VirtualClock

  constructor(clock: VirtualClock) {
    this.#clock = clock
  }

  micros(): number {
    return this.#clock.wallMicros() + 1000 * (this.settings.at(-1)?.aheadMs ?? 0)
  }

  /** @param aheadMs whole milliseconds; negative: it is late */
  set(aheadMs: number): void {
    const nowMs = this.#clock.wallMicros() / 1000
    const last = this.settings.at(-1)
    if (last !== undefined) last.untilMs = nowMs
    this.settings.push({ sinceMs: nowMs, untilMs: Number.POSITIVE_INFINITY, aheadMs })
  }

  /** When it showed a time, or less than a second before: at several moments where it was set back. */
  whenShown(shownMs: number): number[] {
    return this.settings.flatMap(({ sinceMs, untilMs, aheadMs }) => {
      const atMs = shownMs - aheadMs
      return sinceMs - 1 <= atMs && atMs <= untilMs + STEP_LIMIT_MS + 1 ? [atMs] : []
    })
  }

  /** How it was set at some moment between two. */
  settingsBetween(fromMs: number, toMs: number): ClockSetting[] {
    return this.settings.filter(({ sinceMs, untilMs }) => sinceMs <= toMs && fromMs <= untilMs)
  }
}
