/**
 * Publishes all days of an archive as the service does, in a separate process with its settings.
 * Writes its figures as JSON to standard output. Argument: the archive's folder.
 */
import { join } from 'node:path'
import { compact } from '../../src/archive/compaction.ts'
import { archiveConfig } from '../../src/archive/config.ts'
import { duckDbCompaction } from '../../src/archive/day-merge.ts'
import { newestDayList } from '../../src/foundation/archive/day-list.ts'
import { openDuckDb } from '../../src/foundation/archive/duckdb.ts'
import { openFolderStore } from '../../src/foundation/archive/folder-store.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import { loadSettings } from '../../src/foundation/settings/load.ts'

const [folder = ''] = process.argv.slice(2)
const { engineBytes, engineThreads } = archiveConfig(
  loadSettings({ ...process.env, ARCHIVE_URL: folder }, { cwd: folder }),
)
const store = openFolderStore(folder)
await store.prepare()
const engine = await openDuckDb({
  memoryBytes: engineBytes,
  tempFolder: join(store.stagingFolder, 'engine'),
  threads: engineThreads,
})
const duckDb = await engine.connect()
const startedMs = performance.now()
const used = process.cpuUsage()
const published = await compact(duckDbCompaction(store, duckDb, systemClock()), () => true)
const seconds = (performance.now() - startedMs) / 1000
const { user, system } = process.cpuUsage(used)
const byTable: Record<string, { rows: number; bytes: number }> = {}
for (const { table, date } of published) {
  const of = byTable[table] ?? { rows: 0, bytes: 0 }
  byTable[table] = of
  for (const file of (await newestDayList(store, table, date))?.files ?? []) {
    of.rows += file.rows
    of.bytes += file.bytes
  }
}
const { maxRSS } = process.resourceUsage()
console.log(JSON.stringify({ seconds, cpuSeconds: (user + system) / 1e6, peakBytes: maxRSS * 1024, byTable }))
process.exit()
