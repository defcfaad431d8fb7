/**
 * The benchmark's exchange, in a separate process: no figure includes its cost, which is small
 * because all frames are generated beforehand. It takes orders over its IPC channel.
 */

import { parseTimeUnit } from '../../src/foundation/market/time-unit.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import { openExchangeServer } from '../../src/sandbox/simulator/exchange-server.ts'
import { ReplayHistory } from '../../src/sandbox/simulator/replay/replay-history.ts'
import type { StreamConnection } from '../../src/sandbox/simulator/server/stream-connection.ts'
import { StreamServer } from '../../src/sandbox/simulator/server/stream-server.ts'
import { DepthFrames } from './depth-frames.ts'
import { type Fed, Feed } from './feed.ts'
import { FrameStore } from './frame-store.ts'

/** An order to the feeder. `perSecond` null: as fast as the client reads. */
export type FeederOrder =
  | { readonly order: 'prepare'; readonly count: number }
  | { readonly order: 'rewind' }
  | { readonly order: 'feed'; readonly count: number; readonly perSecond: number | null }
  /**
   * Sends to this many clients at once at full speed: to each an equal part of the frames, with
   * only its symbols.
   */
  | { readonly order: 'feedShards'; readonly count: number; readonly shards: number }

/** In market time. */
const MARKET_MESSAGES_A_SECOND = 5000

const [frameKind, unit, ...symbols] = process.argv.slice(2)
const timeUnit = parseTimeUnit(unit) ?? 'microsecond'
const clock = systemClock()
const streams = new StreamServer({
  source: 'bench',
  ownTimeUnit: timeUnit,
  limits: { bufferedMaxBytes: Number.POSITIVE_INFINITY },
  clock,
})
const past = new ReplayHistory(symbols)
const depth = frameKind === 'depth' ? new DepthFrames(symbols, timeUnit, clock) : null
const exchange = await openExchangeServer({ portWaitMs: 0 }, { streams, past, books: depth, faultSeed: 1 })
const frames = depth ?? new FrameStore(symbols, MARKET_MESSAGES_A_SECOND, timeUnit)
// A connection subscribes to the last of many streams some time after the first.
const client = async () => first(await clients(1, depth === null ? 1 : symbols.length))
const feed = new Feed(frames, client, clock)

/** Waits until this many clients have subscribed to so many streams each. */
async function clients(count: number, most = 1): Promise<StreamConnection[]> {
  for (;;) {
    const all = [...streams.connections].filter((connection) => connection.streams.size >= most)
    if (all.length >= count) return all
    await new Promise<void>((resolve) => clock.schedule(10, resolve))
  }
}

function first(connections: readonly StreamConnection[]): StreamConnection {
  const [connection] = connections
  if (connection === undefined) throw new Error('No client')
  return connection
}

async function feedShards(count: number, shards: number): Promise<Fed> {
  const share = Math.floor(count / shards)
  const feeds = (await clients(shards)).map((connection) => {
    const own = new Set([...connection.streams].map((stream) => stream.split('@', 1).join().toUpperCase()))
    const store = new FrameStore([...own], MARKET_MESSAGES_A_SECOND, timeUnit)
    store.prepare(share)
    return new Feed(store, async () => connection, clock)
  })
  const fed = await Promise.all(feeds.map((one) => one.flatOut(share)))
  return {
    startedUs: Math.min(...fed.map(({ startedUs }) => startedUs)),
    endedUs: Math.max(...fed.map(({ endedUs }) => endedUs)),
  }
}

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
    case 'feedShards':
      return feedShards(given.count, given.shards)
  }
}

process.on('message', (given: FeederOrder) => {
  carryOut(given).then(
    (done) => process.send?.({ done }),
    (error: unknown) => process.send?.({ failed: String(error) }),
  )
})
process.send?.({ done: { wsUrl: exchange.wsUrl, restUrl: exchange.restUrl } })
