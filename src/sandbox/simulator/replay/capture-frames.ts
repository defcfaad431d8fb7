import { createHash } from 'node:crypto'
import { isTime } from '../../../foundation/market/fields.ts'
import { TIME_UNITS, type TimeUnit } from '../../../foundation/market/time-unit.ts'
import type { BookSnapshot } from '../market/book-history.ts'
import { captureError, captureLines, type LineBatch } from './capture-file.ts'
import { snapshotIn } from './replay-books.ts'

/** A line of a capture that carries market data. */
export interface CapturedFrame {
  readonly receivedNs: bigint
  readonly stream: string
  readonly text: string
  readonly data: unknown
}

/** Content of a capture, found by reading it once. */
export interface CaptureContent {
  /** Hash of the file's bytes, in hex. */
  readonly sha256: string
  readonly streams: ReadonlySet<string>
  readonly symbols: readonly string[]
  /** The unit of its times; null when no frame has a time. */
  readonly timeUnit: TimeUnit | null
  /** The first order book among the validated lines, as REST returned it; null if there is none. */
  readonly snapshot: BookSnapshot | null
}

/** Lines validated at the start. The others are during the replay: a big file starts early. */
const CHECKED_LINES = 1_000

/**
 * Validates the beginning of a capture and searches the rest for streams.
 * @throws {TapelineError} `INPUT` naming the line, or when the file has no frame of a stream
 */
export async function scanCapture(path: string): Promise<CaptureContent> {
  const hash = createHash('sha256')
  const streams = new Set<string>()
  let timeUnit: TimeUnit | null = null
  let snapshot: BookSnapshot | null = null
  for await (const batch of captureLines(path, (bytes) => hash.update(bytes))) {
    for (const line of timeUnit === null ? batch.lines : []) timeUnit ??= timeUnitOf(line)
    const checked = Math.max(0, CHECKED_LINES + 1 - batch.firstNumber)
    for (const { frame } of jsonOf(path, { ...batch, lines: batch.lines.slice(0, checked) })) {
      const stream: unknown = Reflect.get(frame, 'stream')
      if (typeof stream === 'string') streams.add(stream)
      else snapshot ??= snapshotIn(frame)
    }
    for (const line of batch.lines.slice(checked)) {
      const stream = /"stream":"([^"\\]+)"/.exec(line)?.[1]
      if (stream !== undefined) streams.add(stream)
    }
  }
  if (streams.size === 0) throw captureError(path, 'it has no frame of a combined stream', {})
  const symbols = [...streams]
    .filter((name) => !name.startsWith('!'))
    .map((name) => name.split('@', 1)[0] ?? '')
  return {
    sha256: hash.digest('hex'),
    streams,
    timeUnit,
    snapshot,
    symbols: [...new Set(symbols.map((name) => name.toUpperCase()))].sort(),
  }
}

/** Detects the unit by the digits of a trade time. */
function timeUnitOf(line: string): TimeUnit | null {
  const time = Number(/"T":(\d+)/.exec(line)?.[1])
  return TIME_UNITS.find((unit) => isTime(time, unit)) ?? null
}

/**
 * Yields the market data in some lines, and skips frames outside the envelope of a stream.
 * @throws {TapelineError} `INPUT` naming the line without a receive time or valid JSON
 */
export function* framesOf(path: string, batch: LineBatch): Generator<CapturedFrame> {
  for (const { receivedNs, text, frame } of jsonOf(path, batch)) {
    const stream: unknown = Reflect.get(frame, 'stream')
    if (typeof stream === 'string') yield { receivedNs, stream, text, data: Reflect.get(frame, 'data') }
  }
}

/** Yields the objects in some lines. */
function* jsonOf(
  path: string,
  batch: LineBatch,
): Generator<{ readonly receivedNs: bigint; readonly text: string; readonly frame: object }> {
  for (const [index, line] of batch.lines.entries()) {
    if (line === '' || line === '\r') continue
    const lineNumber = batch.firstNumber + index
    const captured = parseCaptureLine(line)
    if (captured === undefined)
      throw captureError(path, 'the receive time in nanoseconds is missing', { lineNumber })
    const { receivedNs, frame: text } = captured
    const frame = parseJson(path, lineNumber, text)
    if (frame !== null && typeof frame === 'object') yield { receivedNs, text, frame }
  }
}

function parseJson(path: string, lineNumber: number, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw captureError(path, 'the frame is not valid JSON', { lineNumber, cause })
  }
}

/** A line of a capture: `<receive time, ns since 1970> <frame>`, in order of receipt. */
export interface CaptureLine {
  readonly receivedNs: bigint
  readonly frame: string
}

const LINE = /^(\d{16,19}) (.+)$/

/** Undefined when the line has no frame, or no receive time in nanoseconds (of 1971 or later). */
export function parseCaptureLine(line: string): CaptureLine | undefined {
  const match = LINE.exec(line)
  if (match?.[1] === undefined || match[2] === undefined) return undefined
  return { receivedNs: BigInt(match[1]), frame: match[2] }
}

/** Formats a line with its end. Line breaks in a frame are white space, and become spaces. */
export function formatCaptureLine({ receivedNs, frame }: CaptureLine): string {
  return `${receivedNs} ${frame.replace(/[\r\n]/g, ' ')}\n`
}
