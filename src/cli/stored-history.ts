import type { Settings } from '../foundation/settings/load.ts'
import { databaseHistory } from '../tools/history/database-history.ts'
import type { HistoryStore } from '../tools/history/history-store.ts'
import { withTextReader } from './stored-data.ts'

/** Reading a day of a busy symbol in the order of its ids takes a while. */
const STATEMENT_TIMEOUT_MS = 3_600_000

export type WithHistoryStore = <Result>(work: (store: HistoryStore) => Promise<Result>) => Promise<Result>

/** Returns a function that opens the store at its present moment. */
export function historyStore(settings: Settings, signal: AbortSignal): WithHistoryStore {
  const options = { timeoutMs: STATEMENT_TIMEOUT_MS, applicationName: 'tapeline-history', signal }
  return (work) => withTextReader(settings, options, (reader) => work(databaseHistory(reader)))
}
