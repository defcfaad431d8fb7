import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const PRELOAD = pathToFileURL(resolve(import.meta.dirname, 'clock-preload.ts')).href

/** A while after the file has changed, the process has read it. */
const NOTICED_WITHIN_MS = 1000

interface Setting {
  readonly sinceMs: number
  untilMs: number
  readonly aheadMs: number
}

/** The wall clock of a process that a test starts with `env`: it can be set while the process runs. */
export interface ProcessWallClock extends Disposable {
  readonly env: Readonly<Record<string, string>>
  set(aheadMs: number): void
  /** The true times at which it may have shown a time, the earliest first; all in milliseconds since the Unix epoch. */
  whenShown(shownMs: number): number[]
}

export function processWallClock(aheadMs = 0): ProcessWallClock {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-clock-'))
  const path = join(folder, 'ahead-ms')
  const settings: Setting[] = []
  const set = (ms: number) => {
    // Whole at any moment.
    writeFileSync(`${path}.new`, String(ms))
    const nowMs = Date.now()
    renameSync(`${path}.new`, path)
    const last = settings.at(-1)
    if (last !== undefined) last.untilMs = nowMs + NOTICED_WITHIN_MS
    settings.push({ sinceMs: nowMs, untilMs: Number.POSITIVE_INFINITY, aheadMs: ms })
  }
  set(aheadMs)
  return {
    env: { NODE_OPTIONS: `--import=${PRELOAD}`, CLOCK_AHEAD_FILE: path },
    set,
    whenShown: (shownMs) =>
      settings.flatMap((setting) => {
        const atMs = shownMs - setting.aheadMs
        return setting.sinceMs <= atMs && atMs <= setting.untilMs ? [atMs] : []
      }),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}
