import type { Settings } from '../settings/load.ts'

export interface ArchiveReaderOptions {
  /** The folder of the archive. */
  readonly url: string
  /** Bytes that the engine may use. */
  readonly memoryBytes: number
  /** Null: a folder of the system's, removed at the end. */
  readonly tempFolder: string | null
  /** Makes the running statement fail with the signal's reason. */
  readonly signal?: AbortSignal
}

export function archiveReaderOptions(settings: Settings): ArchiveReaderOptions {
  return {
    url: settings.ARCHIVE_URL,
    memoryBytes: settings.ARCHIVE_MEMORY_MB << 20,
    tempFolder: settings.ARCHIVE_TEMP ?? null,
  }
}
