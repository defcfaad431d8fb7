import { codeOf, describeError, isTapelineError, TapelineError } from '../runtime/errors.ts'

const SPACE = 'Free space on its disk: the archive continues automatically.'
const RIGHTS = 'Give the user of the archive the right to write there.'
const PATH = 'Set ARCHIVE_URL to a folder on a disk.'

interface Cause {
  readonly fix: string
  /** Whether it cannot pass while a service starts: a person has to act. */
  readonly isFinal: boolean
}

/** By the code of an error of a file system. */
const CAUSES: Readonly<Record<string, Cause>> = {
  ENOSPC: { fix: SPACE, isFinal: false },
  EDQUOT: { fix: SPACE, isFinal: false },
  EACCES: { fix: RIGHTS, isFinal: true },
  EPERM: { fix: RIGHTS, isFinal: true },
  EROFS: { fix: 'Mount its disk for writing, or set ARCHIVE_URL to another folder.', isFinal: true },
  ENOENT: { fix: `${PATH} If its disk was unmounted, mount it and restart the archive.`, isFinal: true },
  ENOTDIR: { fix: `${PATH} A part of this path is a file.`, isFinal: true },
  ENAMETOOLONG: { fix: PATH, isFinal: true },
  ELOOP: { fix: PATH, isFinal: true },
}

/** The engine names no code. */
const UNKNOWN: Cause = {
  fix: 'Check that its disk, and that of ARCHIVE_TEMP, has free space and can be written. If memory is short, raise ARCHIVE_MEMORY_MB. The archive continues automatically.',
  isFinal: false,
}

/**
 * Returns an error of a folder's archive with the fix: `STORE`, since a person may fix it while the
 * service retries. Errors that have a fix stay as they are.
 */
export function writeError(error: unknown, folder: string): TapelineError {
  return isTapelineError(error) ? error : named('STORE', error, folder)
}

/** The same at the start: `ARCHIVE` where waiting cannot help. */
export function prepareError(error: unknown, folder: string): TapelineError {
  return named(causeOf(error).isFinal ? 'ARCHIVE' : 'STORE', error, folder)
}

function named(code: 'ARCHIVE' | 'STORE', error: unknown, folder: string): TapelineError {
  const message = `The archive ${folder} cannot be written: ${describeError(error)}`
  return new TapelineError(code, message, { fix: causeOf(error).fix, cause: error })
}

function causeOf(error: unknown): Cause {
  return CAUSES[String(codeOf(error))] ?? UNKNOWN
}
