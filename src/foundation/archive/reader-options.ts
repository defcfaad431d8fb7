import type { Settings } from '../settings/load.ts'
import { type ArchiveLocation, archiveLocation } from './open-store.ts'

export interface ArchiveReaderOptions extends ArchiveLocation {
  /** Bytes that the engine may use. */
  readonly memoryBytes: number
  /** Null: a folder of the system's, removed at the end. */
  readonly tempFolder: string | null
  /** Makes the running statement fail with the signal's reason. */
  readonly signal?: AbortSignal
}

export function archiveReaderOptions(settings: Settings): ArchiveReaderOptions {
  return {
    ...archiveLocation(settings),
    memoryBytes: settings.ARCHIVE_MEMORY_MB * 2 ** 20,
    tempFolder: settings.ARCHIVE_TEMP ?? null,
  }
}
