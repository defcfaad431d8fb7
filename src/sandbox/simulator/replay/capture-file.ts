import { type FileHandle, open } from 'node:fs/promises'
import { pipeline, Readable } from 'node:stream'
import { StringDecoder } from 'node:string_decoder'
import { createGunzip } from 'node:zlib'
import { codeOf, describeError, TapelineError } from '../../../foundation/runtime/errors.ts'

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
  options: { lineNumber?: number; fix?: string | undefined; cause?: unknown },
): TapelineError {
  const where = options.lineNumber === undefined ? path : `${path}, line ${options.lineNumber}`
  return new TapelineError('INPUT', `${where}: ${what}.`, {
    fix: options.fix ?? FORMAT,
    cause: options.cause,
  })
}

/**
 * Reads a capture, plain or gzipped, in batches of lines. Leaving the loop early closes the file.
 * @throws {TapelineError} `INPUT` when the file is missing, unreadable or damaged
 */
export async function* captureLines(
  path: string,
  onBytes?: (bytes: Buffer) => void,
): AsyncGenerator<LineBatch> {
  const file = await open(path).catch((error: unknown) => {
    throw asCaptureError(path, error)
  })
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

const FILE_ERRORS: Readonly<Record<string, readonly [what: string, fix: string]>> = {
  ENOENT: ['there is no such file', 'Give the path of a capture.'],
  EISDIR: ['this is a folder', 'Give the path of a capture.'],
  EACCES: ['it may not be read', 'Make the file readable.'],
}

/** Describes errors of the file system and zlib that concern the file. */
function asCaptureError(path: string, cause: unknown): unknown {
  const code = codeOf(cause)
  if (typeof code !== 'string') return cause
  const [what, fix] =
    FILE_ERRORS[code] ??
    (code.startsWith('Z_')
      ? [`the gzip file is damaged or cut off (${describeError(cause)})`, 'Download or record it again.']
      : [])
  return what === undefined ? cause : captureError(path, what, { fix, cause })
}
