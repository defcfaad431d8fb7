import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { DAY_TABLES } from '../../src/foundation/archive/tables.ts'
import type { Figures } from '../run.ts'

const MAIN = resolve(import.meta.dirname, 'compact-main.ts')
const LIMIT_MS = 30 * 60_000
const MiB = 1 << 20

interface Compacted {
  readonly seconds: number
  readonly cpuSeconds: number
  readonly peakBytes: number
  readonly byTable: Readonly<Record<string, { readonly rows: number; readonly bytes: number }>>
}

/** Publishes the days of an archive in a separate process, as the service does. */
export async function compactAlone(folder: string): Promise<Figures> {
  // As in bin/tapeline.
  const options = { MALLOC_ARENA_MAX: '2', NODE_OPTIONS: '--max-semi-space-size=8 --v8-pool-size=1' }
  const { PATH, HOME, TAPELINE_TEST_RUN } = process.env
  const { stdout } = await promisify(execFile)(process.execPath, [MAIN, folder], {
    timeout: LIMIT_MS,
    env: { PATH, HOME, TAPELINE_TEST_RUN, ...options },
  })
  const { seconds, cpuSeconds, peakBytes, byTable } = JSON.parse(stdout) as Compacted
  const rows = Object.values(byTable).reduce((sum, one) => sum + one.rows, 0)
  if (rows === 0) throw new Error(`${folder} had nothing to publish`)
  const perRow = Object.entries(byTable).map(([table, of]) => [
    `bytes per row of ${table}`,
    of.bytes / of.rows,
  ])
  return {
    'rows/s': rows / seconds,
    rows,
    µs: (cpuSeconds * 1e6) / rows,
    MiB: peakBytes / MiB,
    ...Object.fromEntries(perRow),
  }
}

/** Removes what was published, so that the same segments are published again. */
export async function unpublish(folder: string): Promise<void> {
  for (const name of ['_days', '_folds', ...DAY_TABLES.keys()])
    await rm(join(folder, name), { recursive: true, force: true })
}
