import { crc32 } from 'node:zlib'
import { type Entry, openPromise, type ZipFile } from 'yauzl'
import { describeError } from '../../foundation/runtime/errors.ts'
import { type DailyFile, unreadable } from './daily-file.ts'

/** A file that cannot be read to its end. What was read before is no evidence. */
export class DamagedFileError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'DamagedFileError'
  }
}

/** What the zip says about the CSV file in it. */
export interface CsvFacts {
  readonly bytes: number
  readonly crc: number
}

/**
 * Yields the CSV file in pieces.
 *
 * @param onOpen called before the first piece
 * @throws DamagedFileError if the zip is truncated or its content does not have its CRC-32;
 *   TapelineError `INPUT` if the file cannot be read
 */
export async function* contentOf(
  { path, name }: DailyFile,
  onOpen: (facts: CsvFacts) => void,
): AsyncGenerator<Buffer, void, undefined> {
  const zip = await openZip(path)
  try {
    const entry = await onlyEntry(zip, name.replace(/\.zip$/, '.csv'))
    onOpen({ bytes: entry.uncompressedSize, crc: entry.crc32 })
    let crc = 0
    try {
      for await (const piece of await zip.openReadStreamPromise(entry)) {
        if (!Buffer.isBuffer(piece)) throw new TypeError('A stream of bytes gave another type')
        crc = crc32(piece, crc)
        yield piece
      }
    } catch (error) {
      throw error instanceof DamagedFileError ? error : damaged(error)
    }
    if (crc !== entry.crc32) throw new DamagedFileError('the content does not match its CRC-32')
  } finally {
    zip.close()
  }
}

async function openZip(path: string): Promise<ZipFile> {
  try {
    return await openPromise(path, { lazyEntries: true, autoClose: false })
  } catch (error) {
    const isFile = Reflect.get(Object(error), 'syscall') === undefined
    throw isFile ? damaged(error) : unreadable(path, error)
  }
}

async function onlyEntry(zip: ZipFile, expected: string): Promise<Entry> {
  const entries: Entry[] = []
  try {
    for await (const entry of zip.eachEntry()) entries.push(entry)
  } catch (error) {
    throw damaged(error)
  }
  const [entry, ...others] = entries
  if (entry === undefined || others.length > 0 || entry.fileName !== expected)
    throw new DamagedFileError(
      `it contains ${entries.map(({ fileName }) => fileName).join(', ') || 'nothing'} instead of ${expected}`,
    )
  return entry
}

function damaged(error: unknown): DamagedFileError {
  return new DamagedFileError(`the zip file is damaged: ${describeError(error)}`, error)
}
