import { type FileHandle, open } from 'node:fs/promises'
import { pipeline, Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { createGunzip } from 'node:zlib'
import { describeError, TapelineError } from '../../../foundation/runtime/errors.ts'

/** Consecutive lines of a file. `firstNumber` is the number of the first line, counted from 1. */
export interface LineBatch {
  readonly firstNumber: number
  readonly lines: readonly string[]
}

const FORMAT =
  'Each line of a capture is "<receive time in ns> <frame>", as `bin/tapeline capture` writes it.'
const LONGEST_LINE = 4 * 1_024 * 1_024

export function captureError(
  path: string,
  what: string,
  options: { lineNumber?: number; fix?: string; cause?: unknown },
): TapelineError {
  const where = options.lineNumber === undefined ? path : `${path}, line ${options.lineNumber}`
  return new TapelineError('INPUT', `${where}: ${what}.`, {
    fix: options.fix ?? FORMAT,
    cause: options.cause,
  })
}

/**
 * Reads a capture from its beginning, plain or gzipped, in batches of lines. Holds only one batch
 * in memory. Leaving the loop early closes the file.
 *
 * @param onBytes called with the raw bytes of the file as they are read
 * @throws {TapelineError} `INPUT` when the file is missing, unreadable, or a damaged or mislabelled
 *   gzip file
 */
export async function* captureLines(
  path: string,
  onBytes?: (bytes: Buffer) => void,
): AsyncGenerator<LineBatch> {
  const file = await openCapture(path)
  try {
    const decoder = new StringDecoder('utf8')
    let rest = ''
    let firstNumber = 1
    for await (const chunk of await contentOf(file, path, onBytes)) {
      const lines = (rest + decoder.write(chunk)).split('\n')
      rest = lines.pop() ?? ''
      if (rest.length > LONGEST_LINE) {
        throw captureError(path, `the line is longer than ${LONGEST_LINE} characters`, {
          lineNumber: firstNumber + lines.length,
        })
      }
      if (lines.length > 0) yield { firstNumber, lines }
      firstNumber += lines.length
    }
    rest += decoder.end()
    if (rest !== '') yield { firstNumber, lines: [rest] }
  } catch (error) {
    throw asCaptureError(path, error)
  } finally {
    await file.close()
  }
}

async function openCapture(path: string): Promise<FileHandle> {
  try {
    return await open(path)
  } catch (error) {
    throw asCaptureError(path, error)
  }
}

async function contentOf(
  file: FileHandle,
  path: string,
  onBytes?: (bytes: Buffer) => void,
): Promise<Readable> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(2), 0, 2, 0)
  const isGzip = bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b
  if (!isGzip && path.endsWith('.gz')) {
    throw captureError(path, 'the name ends in .gz, but this is not a gzip file', {
      fix: 'Give the file its right name, or compress it with gzip.',
    })
  }
  const bytes = Readable.from(tapped(file.createReadStream({ start: 0, autoClose: false }), onBytes), {
    objectMode: false,
  })
  if (!isGzip) return bytes
  // Reading the content throws the same error, so the callback ignores it.
  return pipeline(bytes, createGunzip(), () => undefined)
}

async function* tapped(
  bytes: AsyncIterable<Buffer>,
  onBytes?: (bytes: Buffer) => void,
): AsyncGenerator<Buffer> {
  for await (const chunk of bytes) {
    onBytes?.(chunk)
    yield chunk
  }
}

/** Describes errors of the file system and zlib that concern the file. */
function asCaptureError(path: string, error: unknown): unknown {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
  if (code === 'ENOENT')
    return captureError(path, 'there is no such file', { fix: 'Give the path of a capture.', cause: error })
  if (code === 'EISDIR')
    return captureError(path, 'this is a folder', { fix: 'Give the path of a capture.', cause: error })
  if (code === 'EACCES')
    return captureError(path, 'it may not be read', { fix: 'Make the file readable.', cause: error })
  if (typeof code === 'string' && code.startsWith('Z_')) {
    return captureError(path, `the gzip file is damaged or cut off (${describeError(error)})`, {
      fix: 'Download or record it again.',
      cause: error,
    })
  }
  return error
}
