import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const PRELOAD = pathToFileURL(resolve(import.meta.dirname, '../../chaos/preloaded.ts')).href

/** Time after a change of the file until the process has read it. */
const NOTICED_WITHIN_MS = 1000

const TEXT_LENGTH = 20

interface Setting {
  readonly sinceMs: number
  untilMs: number
  readonly aheadMs: number
}

export type ProcessWallClock = ReturnType<typeof processWallClock>

/** The wall clock of a process that a test starts with `env`; it can be changed while that runs. */
export function processWallClock(aheadMs = 0) {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-clock-'))
  const path = join(folder, 'ahead-ms')
  const file = openSync(path, 'w')
  const settings: Setting[] = []
  const set = (ms: number) => {
    const nowMs = Date.now()
    // Every write has the same length, so that a reader never sees a partial value.
    writeSync(file, String(ms).padEnd(TEXT_LENGTH), 0)
    const last = settings.at(-1)
    if (last !== undefined) last.untilMs = nowMs + NOTICED_WITHIN_MS
    settings.push({ sinceMs: nowMs, untilMs: Number.POSITIVE_INFINITY, aheadMs: ms })
  }
  set(aheadMs)
  return {
    env: { NODE_OPTIONS: `--import=${PRELOAD}`, CHAOS_CLOCK_FILE: path },
    set,
    /** The true times at which the clock may have shown a time, in ms since 1970, in order. */
    whenShown: (shownMs: number): number[] =>
      settings.flatMap((setting) => {
        const atMs = shownMs - setting.aheadMs
        return setting.sinceMs <= atMs && atMs <= setting.untilMs ? [atMs] : []
      }),
    [Symbol.dispose]: () => {
      closeSync(file)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}
