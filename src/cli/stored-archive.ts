import type { ArchiveReader } from '../foundation/archive/archive-reader.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import type { Settings } from '../foundation/settings/load.ts'
import { storedArchive } from './stored-data.ts'

/** Opens the archive of `storedArchive` for the work. @throws TapelineError `ARCHIVE` also for what the engine refuses */
export async function withStoredArchive<Result>(
  settings: Settings,
  signal: AbortSignal,
  work: (reader: ArchiveReader) => Promise<Result>,
): Promise<Result> {
  const options = storedArchive(settings)
  // Imported here, since the other commands do not need the engine.
  const { withArchive } = await import('../foundation/archive/archive-reader.ts')
  const { EngineError } = await import('../foundation/archive/engine-texts.ts')
  try {
    return await withArchive({ ...options, signal }, work)
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof EngineError)) throw error
    throw new TapelineError('ARCHIVE', `${options.url} cannot be read: ${error.message}`, {
      fix: 'If memory is short, raise ARCHIVE_MEMORY_MB, or ask for less at a time: fewer symbols or days. `bin/tapeline archive check` names damaged files.',
      cause: error,
    })
  }
}
