import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Clock, systemClock } from '../../src/foundation/runtime/clock.ts'

const PRELOAD = pathToFileURL(resolve(import.meta.dirname, '../../chaos/preloaded.ts')).href

const TEXT_LENGTH = 20

/**
 * After a smaller step back, receipt times advance by single microseconds. A process has read a change
 * of its clock's file within this time.
 */
export const STEP_LIMIT_MS = 1000

/** A period with one clock offset. True time, milliseconds since the Unix epoch. */
interface ClockSetting {
  readonly sinceMs: number
  untilMs: number
  readonly aheadMs: number
}

/** The wall clock of a machine or process: the true time and its offset. */
export class WallClock {
  readonly settings: ClockSetting[]
  readonly #clock: Pick<Clock, 'wallMicros'>

  /** @param clock shows the true time */
  constructor(clock: Pick<Clock, 'wallMicros'>, aheadMs = 0, sinceMs = Number.NEGATIVE_INFINITY) {
    this.#clock = clock
    this.settings = [{ sinceMs, untilMs: Number.POSITIVE_INFINITY, aheadMs }]
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

export type ProcessWallClock = ReturnType<typeof processWallClock>

/** The wall clock of a process that a test starts with `env`; it can be changed while that runs. */
export function processWallClock(aheadMs = 0) {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-clock-'))
  const path = join(folder, 'ahead-ms')
  const file = openSync(path, 'w')
  const wall = new WallClock(systemClock(), aheadMs, Date.now())
  // Every write has the same length, so that a reader never sees a partial value.
  const write = (ms: number) => writeSync(file, String(ms).padEnd(TEXT_LENGTH), 0)
  write(aheadMs)
  return {
    env: { NODE_OPTIONS: `--import=${PRELOAD}`, CHAOS_CLOCK_FILE: path },
    set(ms: number) {
      wall.set(ms)
      write(ms)
    },
    /** The true times at which the clock may have shown a time, in ms since 1970, in order. */
    whenShown: (shownMs: number) => wall.whenShown(shownMs),
    [Symbol.dispose]: () => {
      closeSync(file)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
