import { createHash } from 'node:crypto'
import { isTime } from '../../../foundation/market/fields.ts'
import { TIME_UNITS, type TimeUnit } from '../../../foundation/market/time-unit.ts'
import { captureError, captureLines, type LineBatch } from './capture-file.ts'
import { parseCaptureLine } from './capture-line.ts'

/** A line of a capture that carries market data. */
export interface CapturedFrame {
  readonly receivedNs: bigint
  readonly stream: string
  /** The frame as it came. */
  readonly text: string
  readonly data: unknown
}

/** What a capture holds, found by reading it once from end to end. */
export interface CaptureContent {
  /** Of the file's bytes, in hex. */
  readonly sha256: string
  readonly streams: ReadonlySet<string>
  readonly symbols: readonly string[]
  /** The unit of its times; null where no frame has any. */
  readonly timeUnit: TimeUnit | null
}

/** Lines checked in full at the start; the others are when they are replayed, or a big file would start late. */
const CHECKED_LINES = 1_000

/**
 * Checks the beginning of a capture in full and looks through the rest for its streams.
 *
 * @throws {TapelineError} `INPUT` naming the line, or when there is no frame of a stream at all
 */
export async function scanCapture(path: string): Promise<CaptureContent> {
  const hash = createHash('sha256')
  const streams = new Set<string>()
  let timeUnit: TimeUnit | null = null
  for await (const batch of captureLines(path, (bytes) => hash.update(bytes))) {
    for (const line of timeUnit === null ? batch.lines : []) timeUnit ??= timeUnitOf(line)
    const checked = Math.max(0, CHECKED_LINES + 1 - batch.firstNumber)
    for (const frame of framesOf(path, { ...batch, lines: batch.lines.slice(0, checked) }))
      streams.add(frame.stream)
    for (const line of batch.lines.slice(checked)) {
      const stream = /"stream":"([^"\\]+)"/.exec(line)?.[1]
      if (stream !== undefined) streams.add(stream)
    }
  }
  if (streams.size === 0) throw captureError(path, 'it holds no frame of a combined stream', {})
  const symbols = [...streams]
    .filter((name) => !name.startsWith('!'))
    .map((name) => name.split('@', 1)[0] ?? '')
  return {
    sha256: hash.digest('hex'),
    streams,
    timeUnit,
    symbols: [...new Set(symbols.map((name) => name.toUpperCase()))].sort(),
  }
}

/** By the digits of a trade time. */
function timeUnitOf(line: string): TimeUnit | null {
  const time = Number(/"T":(\d+)/.exec(line)?.[1])
  return TIME_UNITS.find((unit) => isTime(time, unit)) ?? null
}

/**
 * The market data among some lines. Frames outside the envelope (answers to requests, snapshots a recorder
 * fetched) are left out: no stream carries them.
 *
 * @throws {TapelineError} `INPUT` naming the line that has no receive time or is no JSON
 */
export function* framesOf(path: string, batch: LineBatch): Generator<CapturedFrame> {
  for (const [index, line] of batch.lines.entries()) {
    if (line === '' || line === '\r') continue
    const lineNumber = batch.firstNumber + index
    const captured = parseCaptureLine(line)
    if (captured === undefined)
      throw captureError(path, 'the receive time in nanoseconds is missing', { lineNumber })
    const { receivedNs, frame: text } = captured
    const frame = parseJson(path, lineNumber, text)
    if (frame === null || typeof frame !== 'object') continue
    const stream: unknown = Reflect.get(frame, 'stream')
    if (typeof stream === 'string') yield { receivedNs, stream, text, data: Reflect.get(frame, 'data') }
  }
}

function parseJson(path: string, lineNumber: number, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw captureError(path, 'the frame is no valid JSON', { lineNumber, cause })
  }
}
