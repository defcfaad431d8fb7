import assert from 'node:assert/strict'
import { type ConsumerParts, trades } from './consumer-parts.ts'
import { produce } from './messages.ts'

/** Of three partitions. */
export const LOAD_SYMBOLS = ['BTCUSDT', 'BNBUSDT', 'SOLUSDT']

export interface Load extends AsyncDisposable {
  /** Of each symbol, by now. */
  readonly produced: number
  /** @returns how many trades of each symbol there are, with the ids from 0 on */
  stop(): Promise<number>
}

/** Produces trades without a pause, until it is told to stop. */
export function startLoad(parts: ConsumerParts): Load {
  let produced = 0
  let running = true
  const done = (async () => {
    while (running) {
      for (const symbol of LOAD_SYMBOLS)
        await produce(parts.topics.env.KAFKA_TRADES_TOPIC, symbol, trades(produced, produced + 100, symbol))
      produced += 100
    }
  })()
  const stop = async () => {
    running = false
    await done
    return produced
  }
  return {
    get produced() {
      return produced
    },
    stop,
    async [Symbol.asyncDispose]() {
      await stop()
    },
  }
}

/** Fails unless each symbol has so many trades, each once. */
export async function assertEachOnce(parts: ConsumerParts, produced: number): Promise<void> {
  const { rows } = await parts.database.query(
    'SELECT symbol, count(*)::int AS rows, count(DISTINCT trade_id)::int AS ids FROM trades GROUP BY symbol ORDER BY symbol',
  )
  assert.deepEqual(
    rows,
    [...LOAD_SYMBOLS].sort().map((symbol) => ({ symbol, rows: produced, ids: produced })),
  )
}
