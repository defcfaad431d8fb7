import { basename } from 'node:path'
import { type Clock, systemClock } from '../../foundation/runtime/clock.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { type Exchange, openExchangeServer } from './exchange-server.ts'
import { scanCapture } from './replay/capture-frames.ts'
import { ReplayFeed, type ReplaySpeed } from './replay/replay-feed.ts'
import { ReplayHistory } from './replay/replay-history.ts'
import { DEFAULT_REST_LIMITS, type RestLimits } from './server/rest-weights.ts'
import { DEFAULT_LIMITS, type StreamLimits } from './server/stream-connection.ts'
import { StreamServer } from './server/stream-server.ts'

/** The only random part of a replay is its faults. */
const FAULT_SEED = 1

export interface ReplayExchangeOptions {
  /** A capture, plain or gzipped. */
  readonly file: string
  /** 0 (the default) means any free port. */
  readonly port?: number
  /** How long to wait for a taken port. Default: 5,000. */
  readonly portWaitMs?: number
  /** Multiple of the original speed, or `max`. Default: 1. */
  readonly speed?: ReplaySpeed
  readonly limits?: Partial<StreamLimits>
  readonly restLimits?: Partial<RestLimits>
  readonly clock?: Clock
  /** Whether `/faults` is served, in addition to the exchange's API. */
  readonly faultApi?: boolean
}

/**
 * Serves a capture with the exchange's protocol. `finished` resolves when its last frame has been
 * sent; the connections then stay open without data. It rejects with `INPUT` at an invalid line
 * after the first thousand, and with an `AbortError` when the exchange is closed before the end.
 *
 * @throws {TapelineError} `INPUT` for an invalid file or speed, `ENVIRONMENT` for a port that stays
 *   taken
 */
export async function startReplayExchange(
  options: ReplayExchangeOptions,
): Promise<Exchange & { readonly finished: Promise<void> }> {
  const { file: path, port = 0, portWaitMs = 5_000, speed = 1, clock = systemClock() } = options
  if (speed !== 'max' && !(speed > 0 && Number.isFinite(speed))) {
    throw new TapelineError('INPUT', `speed: expected a number above 0 or "max", got ${speed}.`)
  }
  const content = await scanCapture(path)
  const source = `replay:${encodeURIComponent(basename(path))}:${content.sha256.slice(0, 12)}`
  const { timeUnit: ownTimeUnit } = content
  const limits = { ...DEFAULT_LIMITS, ...options.limits, bufferedMaxBytes: Number.POSITIVE_INFINITY }
  const streams = new StreamServer({ source, ownTimeUnit, limits, clock })
  const history = new ReplayHistory(content.symbols)
  const feed = new ReplayFeed({ path, content, streams, history, speed, clock })
  const exchange = await openExchangeServer({
    port,
    portWaitMs,
    source,
    ownTimeUnit,
    streams,
    past: history,
    restLimits: { ...DEFAULT_REST_LIMITS, ...options.restLimits },
    clock,
    faultSeed: FAULT_SEED,
    faultApi: options.faultApi ?? false,
  })
  return {
    ...exchange,
    finished: feed.finished,
    async close() {
      feed.stop()
      await exchange.close()
    },
  }
}
