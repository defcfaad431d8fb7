import { type ArchiveReaderOptions, archiveReaderOptions } from '../foundation/archive/reader-options.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { readRunningEndpoints } from '../sandbox/processes/process-registry.ts'

/** Returns the archive of ARCHIVE_URL, else that of the running `up`, else the default. */
export function storedArchive(settings: Settings): ArchiveReaderOptions {
  const options = archiveReaderOptions(settings)
  const running = settings.isSet('ARCHIVE_URL') ? null : readRunningEndpoints(settings.DATA_DIR)
  return running === null || running.archive === '' ? options : { ...options, url: running.archive }
}
