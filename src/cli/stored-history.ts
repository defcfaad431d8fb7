import type { Settings } from '../foundation/settings/load.ts'
import { databaseHistory } from '../tools/history/database-history.ts'
import type { HistoryStore } from '../tools/history/history-store.ts'
import { storedArchive, withTextReader } from './stored-data.ts'

/** Reading a day of a busy symbol in the order of its ids takes a while. */
const STATEMENT_TIMEOUT_MS = 3_600_000

export const ARCHIVE_OPTION = [
  '--archive',
  'use the rows of the archive at ARCHIVE_URL, not of the database',
] as const

/** Opens the store at its present moment. */
export type WithStore = <Result>(work: (store: HistoryStore) => Promise<Result>) => Promise<Result>

/** Runs work over the stored trades: of the archive, or of the database. */
export async function withHistory<Result>(
  settings: Settings,
  isArchive: boolean,
  signal: AbortSignal,
  work: (withStore: WithStore) => Promise<Result>,
): Promise<Result> {
  if (!isArchive) {
    const options = { timeoutMs: STATEMENT_TIMEOUT_MS, applicationName: 'tapeline-history', signal }
    return work((read) => withTextReader(settings, options, (reader) => read(databaseHistory(reader))))
  }
  // Imported here, since the database needs no engine.
  const { withArchive } = await import('../foundation/archive/archive-reader.ts')
  const { archiveHistory } = await import('../tools/history/archive-history.ts')
  return withArchive({ ...storedArchive(settings), signal }, (reader) => {
    const store = archiveHistory(reader)
    return work((read) => read(store))
  })
}
