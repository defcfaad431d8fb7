/**
 * The benchmark's exchange, a process of its own: what it costs is in nobody's figures, and little, since all frames are
 * made beforehand. It is told what to do over its IPC channel.
 */
import { openExchangeServer } from '../../src/exchange/exchange-server.ts'
import { ReplayHistory } from '../../src/exchange/replay-history.ts'
import { DEFAULT_REST_LIMITS } from '../../src/exchange/rest-weights.ts'
import { DEFAULT_LIMITS } from '../../src/exchange/stream-connection.ts'
import { StreamServer } from '../../src/exchange/stream-server.ts'
import { systemClock } from '../../src/timing/clock.ts'
import { Feed } from './feed.ts'
import { FrameStore } from './frame-store.ts'

/** What it may be told. `perSecond` null: as fast as the client takes them. */
export type FeederOrder =
  | { readonly order: 'prepare'; readonly count: number }
  | { readonly order: 'rewind' }
  | { readonly order: 'feed'; readonly count: number; readonly perSecond: number | null }

const SOURCE = 'bench'

const symbols = process.argv.slice(2)
const clock = systemClock()
const streams = new StreamServer({
  source: SOURCE,
  limits: { ...DEFAULT_LIMITS, bufferedMaxBytes: Number.POSITIVE_INFINITY },
  clock,
})
const exchange = await openExchangeServer({
  port: 0,
  portWaitMs: 0,
  source: SOURCE,
  streams,
  past: new ReplayHistory(symbols),
  restLimits: DEFAULT_REST_LIMITS,
  clock,
  faultSeed: 1,
  faultInterface: false,
})
const frames = new FrameStore(symbols, 5000)
const feed = new Feed(frames, streams, clock)

async function carryOut(given: FeederOrder): Promise<unknown> {
  switch (given.order) {
    case 'prepare':
      frames.prepare(given.count)
      return true
    case 'rewind':
      feed.rewind()
      return true
    case 'feed':
      return given.perSecond === null
        ? feed.flatOut(given.count)
        : feed.steadily(given.count, given.perSecond)
  }
}

process.on('message', (given: FeederOrder) => {
  carryOut(given).then(
    (done) => process.send?.({ done }),
    (error: unknown) => process.send?.({ failed: String(error) }),
  )
})
process.send?.({ done: { wsUrl: exchange.wsUrl, restUrl: exchange.restUrl } })
