import { CommitChain, chainsOf } from '../../src/foundation/archive/commit-chain.ts'
import { openFolderStore } from '../../src/foundation/archive/folder-store.ts'
import { DAY_TABLES } from '../../src/foundation/archive/tables.ts'
import type { ArchiveStatus } from '../../src/foundation/telemetry/status.ts'

/** What an archive's commit records have. */
export interface Archived {
  /** Rows of events, without those of texts. */
  readonly rows: number
  readonly bytes: number
  readonly segments: number
}

export async function archivedIn(folder: string): Promise<Archived> {
  const store = openFolderStore(folder)
  let [rows, bytes, segments] = [0, 0, 0]
  for (const partition of await chainsOf(store)) {
    for (const { files } of await new CommitChain(store, partition).records()) {
      segments++
      for (const file of files) {
        if (!DAY_TABLES.has(file.table)) continue
        rows += file.rows
        bytes += file.bytes
      }
    }
  }
  return { rows, bytes, segments }
}

/** @throws unless the archive has each message as one row */
export function requireArchived({ rows }: Archived, expected: number): void {
  if (rows !== expected) throw new Error(`${expected} messages were sent, but ${rows} rows were archived`)
}

/** Rows of events that a service has archived since its start. */
export function rowsIn({ rows }: ArchiveStatus): number {
  return [...DAY_TABLES.keys()].reduce((sum, table) => sum + (rows[table] ?? 0), 0)
}
