import { basename } from 'node:path'
import { systemClock } from '../../foundation/runtime/clock.ts'
import { type Exchange, type ExchangeOptions, openExchangeServer } from './exchange-server.ts'
import { type CaptureContent, scanCapture } from './replay/capture-frames.ts'
import { ReplayBooks } from './replay/replay-books.ts'
import { ReplayFeed, type ReplaySpeed } from './replay/replay-feed.ts'
import { ReplayHistory } from './replay/replay-history.ts'
import { StreamServer } from './server/stream-server.ts'

/** The only random part of a replay is its faults. */
const FAULT_SEED = 1

export interface ReplayExchangeOptions extends ExchangeOptions {
  /** A capture, plain or gzipped. */
  readonly file: string
  /** Multiple (above 0) of the original speed, or `max`. Default: 1. */
  readonly speed?: ReplaySpeed
}

/**
 * Serves a capture with the exchange's protocol. `finished` resolves when its last frame has been
 * sent; the connections then stay open without data. It rejects with `INPUT` at an invalid line
 * after the first thousand, and with an `AbortError` when the exchange is closed before the end.
 * @throws {TapelineError} `INPUT` for an invalid file, `ENVIRONMENT` for a port that stays taken
 */
export async function startReplayExchange(
  options: ReplayExchangeOptions,
): Promise<Exchange & { readonly finished: Promise<void> }> {
  const { file: path, speed = 1, clock = systemClock() } = options
  const content = await scanCapture(path)
  const source = `replay:${encodeURIComponent(basename(path))}:${content.sha256.slice(0, 12)}`
  const limits = { ...options.limits, bufferedMaxBytes: Number.POSITIVE_INFINITY }
  const streams = new StreamServer({ source, ownTimeUnit: content.timeUnit, limits, clock })
  const past = new ReplayHistory(content.symbols)
  const books = booksOf(content)
  const feed = new ReplayFeed({ path, content, streams, history: past, books, speed })
  const served = { streams, past, books, faultSeed: FAULT_SEED, stop: () => feed.stop() }
  return { ...(await openExchangeServer(options, served)), finished: feed.finished }
}

/** The book of a capture with a snapshot and the diffs of one symbol; a snapshot does not name its symbol. */
function booksOf({ snapshot, streams }: CaptureContent): ReplayBooks | null {
  const [first, ...others] = new Set([...streams].flatMap((name) => /^(.+)@depth/.exec(name)?.[1] ?? []))
  return snapshot === null || first === undefined || others.length > 0
    ? null
    : new ReplayBooks(first.toUpperCase(), snapshot)
}
