import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { startTapeline } from '../../test/support/processes.ts'
import type { Place } from '../place.ts'
import type { Figures } from '../run.ts'

const MAIN = resolve(import.meta.dirname, 'main.ts')
const LIMIT_MS = 300_000

export type StageAlone = 'decode' | 'produce' | 'insert' | 'rebuild' | 'depth'

/** Runs a stage in a separate process, and returns its upper limit with it. */
export async function runAlone(place: Place, stage: StageAlone, messages: number): Promise<Figures> {
  const database = stage === 'insert' || stage === 'depth' ? await place.createDatabase() : null
  try {
    if (database !== null) {
      await using migration = startTapeline(['migrate'], { env: { DATABASE_URL: database.url } })
      await migration.assertExit(0, LIMIT_MS)
    }
    const args = [stage, String(messages), place.brokers, database?.url ?? '']
    const { stdout } = await promisify(execFile)(process.execPath, [MAIN, ...args], { timeout: LIMIT_MS })
    return JSON.parse(stdout) as Figures
  } finally {
    await database?.drop()
    await place.deleteTopics('alone-')
  }
}
