import { planConnections } from '../../foundation/binance/connection-plan.ts'
import { ExchangeGate } from '../../foundation/binance/exchange-gate.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import type { BackoffPolicy } from '../../foundation/runtime/backoff.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { parseJson } from '../../foundation/runtime/outside-text.ts'
import { formatCaptureLine } from '../simulator/replay/capture-frames.ts'
import { CaptureConnection } from './capture-connection.ts'
import { CaptureWriter } from './capture-writer.ts'

export interface CaptureOptions {
  /** Gzipped when the name ends in `.gz`. */
  readonly file: string
  readonly overwrite: boolean
  /** Base of the combined stream, like `wss://stream.binance.com:9443`. */
  readonly wsUrl: string
  readonly streams: readonly string[]
  /** Unit requested from the exchange. An exchange with a fixed unit ignores it. */
  readonly timeUnit: TimeUnit
  readonly backoff: BackoffPolicy
  readonly clock: Clock
  /** Called with a sentence for each connection that ended or could not be opened. */
  readonly onProblem: (what: string) => void
}

export interface CaptureSummary {
  readonly frames: number
  readonly bytes: number
  /** Connections in excess of one per plan. */
  readonly reconnects: number
  /** Frames that are not JSON. A replay cannot serve them, so they are counted and not written. */
  readonly leftOut: number
  readonly firstAt: Date | null
  readonly lastAt: Date | null
  /** Names of the exchange; several if it changed in between. */
  readonly sources: readonly string[]
  readonly silentStreams: readonly string[]
}

export interface RunningCapture {
  frames(): number
  /** Rejects when the capture cannot continue, like on a full disk. The file is complete then. */
  readonly failed: Promise<never>
  /** Ends the connections and completes the file. */
  stop(): Promise<CaptureSummary>
}

/**
 * Records frames of streams with their receipt. A slow disk pauses the sockets, so memory stays
 * bounded.
 * @throws {TapelineError} `INPUT` when the file exists already or cannot be created
 */
export async function startCapture(options: CaptureOptions): Promise<RunningCapture> {
  const { clock, onProblem, streams } = options
  const silent = new Set(streams)
  const sources = new Set<string>()
  const counts = { frames: 0, opened: 0, leftOut: 0 }
  let firstUs = 0
  let lastUs = 0
  let stampUs = 0

  const writer = await CaptureWriter.open(options.file, {
    overwrite: options.overwrite,
    onRoom: () => {
      for (const connection of connections) connection.resume()
    },
  })
  const onFrame = (bytes: Buffer, isBinary: boolean): boolean => {
    // Taken before parsing. Strictly rising, even if the machine's clock is set back.
    stampUs = Math.max(stampUs + 1, clock.wallMicros())
    const frame = bytes.toString()
    const stream = isBinary ? undefined : streamOf(frame)
    if (stream === undefined) {
      counts.leftOut++
      return false
    }
    if (counts.frames++ === 0) firstUs = stampUs
    lastUs = stampUs
    if (stream !== null) silent.delete(stream)
    const line = formatCaptureLine({ receivedNs: BigInt(stampUs) * 1_000n, frame })
    if (!writer.write(line)) for (const connection of connections) connection.pause()
    return stream !== null
  }
  const onOpen = (source: string) => {
    counts.opened++
    sources.add(source)
  }
  // A recording runs unattended for hours, so it waits for temporary failures.
  const gate = new ExchangeGate(clock, Math.random, (level, { fix }, text) => {
    if (level === 'warn') onProblem(`${text}${fix === undefined ? '' : `. ${fix}`}`)
  })
  const plans = planConnections(options.wsUrl, streams, options.timeUnit)
  const connections = plans.map(
    (plan) => new CaptureConnection({ plan, backoff: options.backoff, gate, onOpen, onFrame, onProblem }),
  )
  const stopping = new AbortController()
  const running = connections.map((connection) => connection.run(stopping.signal))
  const { promise: failed, reject: fail } = Promise.withResolvers<never>()
  failed.catch(() => undefined)
  for (const part of [...running, writer.finished]) part.catch(fail)
  return {
    frames: () => counts.frames,
    failed,
    async stop() {
      stopping.abort()
      // `failed` reports the reason of a connection that could not continue.
      await Promise.allSettled(running)
      await writer.close()
      return {
        frames: counts.frames,
        bytes: writer.fileBytes,
        reconnects: Math.max(0, counts.opened - plans.length),
        leftOut: counts.leftOut,
        firstAt: counts.frames === 0 ? null : new Date(firstUs / 1_000),
        lastAt: counts.frames === 0 ? null : new Date(lastUs / 1_000),
        sources: [...sources],
        silentStreams: [...silent],
      }
    },
  }
}

/** The stream of a frame; null for JSON outside the envelope, undefined if it is not JSON. */
function streamOf(frame: string): string | null | undefined {
  const value = parseJson(frame)
  if (value === undefined) return undefined
  const stream: unknown = Reflect.get(Object(value), 'stream')
  return typeof stream === 'string' ? stream : null
}
