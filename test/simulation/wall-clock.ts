import type { VirtualClock } from '../support/virtual-clock.ts'

/** After a smaller step back, receipt times advance by single microseconds. */
export const STEP_LIMIT_MS = 1000

/** A period with one clock offset. True time, milliseconds since the Unix epoch. */
export interface ClockSetting {
  readonly sinceMs: number
  untilMs: number
  readonly aheadMs: number
}

/** The wall clock of ingestion's machine: the true time and its offset. */
export class WallClock {
  readonly settings: ClockSetting[] = [
    { sinceMs: Number.NEGATIVE_INFINITY, untilMs: Number.POSITIVE_INFINITY, aheadMs: 0 },
  ]
  readonly #clock: VirtualClock

  constructor(clock: VirtualClock) {
    this.#clock = clock
  }

  wallMicros(): number {
    return this.#clock.wallMicros() + 1000 * (this.settings.at(-1)?.aheadMs ?? 0)
  }

  /** @param aheadMs whole milliseconds; negative: slow */
  set(aheadMs: number): void {
    const nowMs = this.#clock.wallMicros() / 1000
    const last = this.settings.at(-1)
    if (last !== undefined) last.untilMs = nowMs
    this.settings.push({ sinceMs: nowMs, untilMs: Number.POSITIVE_INFINITY, aheadMs })
  }

  /** When it showed a time, or one less than a second earlier: several moments after a step back. */
  whenShown(shownMs: number): number[] {
    return this.settings.flatMap(({ sinceMs, untilMs, aheadMs }) => {
      const atMs = shownMs - aheadMs
      return sinceMs - 1 <= atMs && atMs <= untilMs + STEP_LIMIT_MS + 1 ? [atMs] : []
    })
  }

  /** The offsets between two moments. */
  settingsBetween(fromMs: number, toMs: number): ClockSetting[] {
    return this.settings.filter(({ sinceMs, untilMs }) => sinceMs <= toMs && fromMs <= untilMs)
  }
}
