import { BLOCK_MS } from './market-plan.ts'
import type { Random } from './random.ts'

/** The schedule of a block: quotes and takers' orders in order, at rising times. */
export interface Moments {
  /** Number of aggTrades that the order fills; 0 for a change of the quote. */
  readonly aggTrades: Uint16Array
  /** Milliseconds since the start of the block. */
  readonly atMs: Uint16Array
}

/** Gap relative to the block's mean, its probability, and how many moments it lasts. */
const TEMPERS: ReadonlyArray<{ readonly gap: number; readonly share: number; readonly moments: number }> = [
  { gap: 6, share: 0.3, moments: 15 },
  { gap: 1, share: 0.5, moments: 30 },
  { gap: 0.03, share: 0.18, moments: 40 },
  { gap: 0.0005, share: 0.02, moments: 80 },
]

const MEAN_AGG_TRADES_PER_ORDER = 1.6
const SWEEP_SHARE = 0.004
const SWEEP_MOST_AGG_TRADES = 60

/** Distributes the block's quotes and aggTrades over time, in bursts and quiet periods. */
export function drawMoments(random: Random, aggTradeCount: number, quoteCount: number): Moments {
  const aggTrades = new Uint16Array(aggTradeCount + quoteCount)
  const elapsed = new Float64Array(aggTrades.length)
  let aggTradesLeft = aggTradeCount
  let quotesLeft = quoteCount
  let count = 0
  let total = 0
  let gap = 1
  let temperLeft = 0
  while (aggTradesLeft + quotesLeft > 0) {
    if (temperLeft-- <= 0) {
      const temper = pickTemper(random.next())
      gap = temper.gap
      temperLeft = temper.moments * random.interval()
    }
    const ordersLeft = aggTradesLeft / MEAN_AGG_TRADES_PER_ORDER
    if (random.next() * (ordersLeft + quotesLeft) < quotesLeft) {
      quotesLeft--
    } else {
      const filled = Math.min(aggTradesLeft, drawAggTradesOfOrder(random))
      aggTrades[count] = filled
      aggTradesLeft -= filled
    }
    total += gap * random.interval()
    elapsed[count++] = total
  }
  total += gap * random.interval()
  return rotate(aggTrades.subarray(0, count), elapsed.subarray(0, count), total, random.next() * total)
}

/**
 * Rotates the schedule to begin at `origin`. Otherwise each block would begin with a temper chosen
 * by its frequency instead of its duration: a burst of the whole market at each full minute.
 */
function rotate(aggTrades: Uint16Array, elapsed: Float64Array, total: number, origin: number): Moments {
  const count = aggTrades.length
  const first = elapsed.findIndex((time) => time >= origin)
  const start = first === -1 ? 0 : first
  const rotated = new Uint16Array(count)
  rotated.set(aggTrades.subarray(start))
  rotated.set(aggTrades.subarray(0, start), count - start)
  const atMs = new Uint16Array(count)
  for (let i = 0; i < count; i++) {
    const drawn = elapsed[(start + i) % count] ?? 0
    const time = drawn >= origin ? drawn - origin : drawn - origin + total
    atMs[i] = Math.min(BLOCK_MS - 1, (time / total) * BLOCK_MS)
  }
  return { aggTrades: rotated, atMs }
}

function pickTemper(random: number): (typeof TEMPERS)[number] {
  let left = random
  for (const temper of TEMPERS) {
    left -= temper.share
    if (left < 0) return temper
  }
  return { gap: 1, share: 0, moments: 1 }
}

function drawAggTradesOfOrder(random: Random): number {
  const draw = random.next()
  if (draw < SWEEP_SHARE) return 5 + Math.floor(random.next() * (SWEEP_MOST_AGG_TRADES - 5))
  return draw < 0.75 ? 1 : draw < 0.92 ? 2 : 3
}

/** Assigns trades to aggTrades. Returns the first trade of each, and `tradeCount` at the end. */
export function dealTrades(random: Random, tradeCount: number, aggTradeCount: number): Int32Array {
  const cumulated = new Float64Array(aggTradeCount)
  let total = 0
  for (let i = 0; i < aggTradeCount; i++) {
    if (random.next() < 0.4) total += Math.min(200, random.pareto(1.1))
    cumulated[i] = total
  }
  const extra = tradeCount - aggTradeCount
  const firsts = new Int32Array(aggTradeCount + 1)
  for (let i = 0; i < aggTradeCount; i++) {
    const dealt = total === 0 ? extra : Math.floor(((cumulated[i] ?? 0) / total) * extra)
    firsts[i + 1] = i + 1 + dealt
  }
  firsts[aggTradeCount] = tradeCount
  return firsts
}
