import assert from 'node:assert/strict'
import { sleep } from '../../src/foundation/runtime/backoff.ts'
import { type ConsumerParts, trades } from './consumer-parts.ts'
import { produce } from './messages.ts'

/** One symbol for each of three partitions: 2, 0 and 1. */
export const LOAD_SYMBOLS = ['BTCUSDT', 'BNBUSDT', 'LTCUSDT']

/** About 3,000 messages per second: an outage of a minute is to be made up within a minute. */
const PAUSE_MS = 50

/** Produces trades until stopped. */
export function startLoad(parts: ConsumerParts) {
  let produced = 0
  let running = true
  const done = (async () => {
    while (running) {
      for (const symbol of LOAD_SYMBOLS)
        await produce(parts.topics.env.KAFKA_TRADES_TOPIC, symbol, trades(produced, produced + 100, symbol))
      produced += 100
      await sleep(PAUSE_MS)
    }
  })()
  /** @returns the number of trades of each symbol, with ids from 0 on */
  const stop = async () => {
    running = false
    await done
    return produced
  }
  return {
    /** Trades of each symbol so far. */
    get produced() {
      return produced
    },
    stop,
    async [Symbol.asyncDispose]() {
      await stop()
    },
  }
}

/** Fails unless each symbol has this many trades, each once. */
export async function assertEachOnce(parts: ConsumerParts, produced: number): Promise<void> {
  const { rows } = await parts.database.query(
    'SELECT symbol, count(*)::int AS rows, count(DISTINCT trade_id)::int AS ids FROM trades GROUP BY symbol ORDER BY symbol',
  )
  assert.deepEqual(
    rows,
    [...LOAD_SYMBOLS].sort().map((symbol) => ({ symbol, rows: produced, ids: produced })),
  )
}
