import { byTickType, TICK_TYPES } from '../../../foundation/market/event.ts'
import { BLOCK_MS, MAX_UPDATE_ID_STEP, type SymbolPlan, UPDATE_IDS_PER_STEP } from './market-plan.ts'
import { dealTrades, drawMoments } from './market-timing.ts'
import { relativePriceAt } from './price-path.ts'
import { hash32, Random } from './random.ts'

/**
 * One symbol's events of one minute, as columns. Times are milliseconds since the start of the
 * block, prices are ticks, quantities are steps. All trades of an aggTrade have its times, price
 * and side, so only the aggTrade stores them.
 */
export interface MarketBlock {
  readonly plan: SymbolPlan
  readonly block: number
  /** The order of sending: the next event of which type, as an index in `TICK_TYPES`. */
  readonly wire: Uint8Array
  readonly aggTrades: {
    /** Index of its first trade. An additional entry ends the last one. */
    readonly firstTrade: Int32Array
    readonly tradeMs: Uint16Array
    /** The time of sending, `E`. Never falls, and is never before `tradeMs`. */
    readonly eventMs: Uint16Array
    readonly ticks: Int32Array
    /** 1 when the buyer is the maker: the taker sold. */
    readonly buyerIsMaker: Uint8Array
  }
  readonly trades: {
    /** Index of its aggTrade. */
    readonly aggTrade: Int32Array
    readonly steps: Int32Array
  }
  readonly quotes: {
    readonly eventMs: Uint16Array
    readonly updateOffset: Int32Array
    readonly bidTicks: Int32Array
    readonly askTicks: Int32Array
    readonly bidSteps: Int32Array
    readonly askSteps: Int32Array
  }
}

/** A type in the order of sending. */
const CODE = byTickType((type) => TICK_TYPES.indexOf(type))

/** Share of moments at which the price moves, and its relative movement per minute. */
const MOVING_SHARE = 0.12
const WANDER_PER_BLOCK = 0.0004
/** Upper limit of a quantity, so that sums of many fit in 32 bits. */
const MOST_STEPS = 1_000_000

/** Creates a block from only the plan and the block's number: equal calls give equal blocks. */
export function makeBlock(plan: SymbolPlan, block: number): MarketBlock {
  const { instrument, perBlock } = plan
  const random = new Random(hash32('block', plan.seed, instrument.symbol, block))
  const firstTrade = dealTrades(random, perBlock.trade, perBlock.aggTrade)
  const moments = drawMoments(random, perBlock.aggTrade, perBlock.bookTicker)
  const mids = drawMids(random, plan, block, moments.atMs.length)
  const wire = new Uint8Array(perBlock.trade + perBlock.aggTrade + perBlock.bookTicker)
  const aggTrades = {
    firstTrade,
    tradeMs: new Uint16Array(perBlock.aggTrade),
    eventMs: new Uint16Array(perBlock.aggTrade),
    ticks: new Int32Array(perBlock.aggTrade),
    buyerIsMaker: new Uint8Array(perBlock.aggTrade),
  }
  const quotes = {
    eventMs: new Uint16Array(perBlock.bookTicker),
    updateOffset: new Int32Array(perBlock.bookTicker),
    bidTicks: new Int32Array(perBlock.bookTicker),
    askTicks: new Int32Array(perBlock.bookTicker),
    bidSteps: new Int32Array(perBlock.bookTicker),
    askSteps: new Int32Array(perBlock.bookTicker),
  }
  const trades = { aggTrade: new Int32Array(perBlock.trade), steps: new Int32Array(perBlock.trade) }
  let sent = 0
  let nextAggTrade = 0
  let nextQuote = 0
  let updateOffset = 0
  let eventMs = 0
  let mid = Number.NaN
  let spread = 1
  let bidSteps = drawSteps(random, instrument.typicalSteps * 20)
  let askSteps = drawSteps(random, instrument.typicalSteps * 20)
  for (let moment = 0; moment < moments.atMs.length; moment++) {
    const atMs = moments.atMs[moment] ?? 0
    eventMs = Math.min(BLOCK_MS - 1, Math.max(eventMs, atMs + drawDelayMs(random.next())))
    const moved = mid !== mids[moment]
    mid = mids[moment] ?? mid
    if (moved) spread = random.next() < 0.85 ? 1 : Math.min(20, Math.ceil(random.pareto(1.5)))
    const filled = moments.aggTrades[moment] ?? 0
    if (filled === 0) {
      if (moved || random.next() < 0.5) bidSteps = drawSteps(random, instrument.typicalSteps * 20)
      else askSteps = drawSteps(random, instrument.typicalSteps * 20)
      updateOffset += random.next() < 0.6 ? 1 : 1 + Math.floor(random.next() * MAX_UPDATE_ID_STEP)
      quotes.eventMs[nextQuote] = eventMs
      quotes.updateOffset[nextQuote] = updateOffset * UPDATE_IDS_PER_STEP
      quotes.bidTicks[nextQuote] = mid
      quotes.askTicks[nextQuote] = mid + spread
      quotes.bidSteps[nextQuote] = bidSteps
      quotes.askSteps[nextQuote++] = askSteps
      wire[sent++] = CODE.bookTicker
      continue
    }
    const takerSells = random.next() < 0.5
    for (let level = 0; level < filled; level++) {
      aggTrades.tradeMs[nextAggTrade] = atMs
      aggTrades.eventMs[nextAggTrade] = eventMs
      aggTrades.ticks[nextAggTrade] = takerSells ? Math.max(1, mid - level) : mid + spread + level
      aggTrades.buyerIsMaker[nextAggTrade] = takerSells ? 1 : 0
      const end = firstTrade[nextAggTrade + 1] ?? 0
      for (let trade = firstTrade[nextAggTrade] ?? 0; trade < end; trade++) {
        trades.aggTrade[trade] = nextAggTrade
        wire[sent++] = CODE.trade
      }
      wire[sent++] = CODE.aggTrade
      nextAggTrade++
    }
  }
  for (let i = 0; i < perBlock.trade; i++) trades.steps[i] = drawSteps(random, instrument.typicalSteps)
  return { plan, block, wire, aggTrades, trades, quotes }
}

/** The best bid at each moment, in ticks: a random walk to the start price of the next block. */
function drawMids(random: Random, plan: SymbolPlan, block: number, count: number): Int32Array {
  const { symbol, referenceTicks } = plan.instrument
  const start = referenceTicks * relativePriceAt(plan.seed, symbol, block)
  const end = referenceTicks * relativePriceAt(plan.seed, symbol, block + 1)
  const moves = new Uint8Array(count)
  const walk = new Float64Array(count)
  let moving = 0
  let position = 0
  for (let i = 0; i < count; i++) {
    if (random.next() < MOVING_SHARE) {
      moves[i] = 1
      moving++
      position += random.bell()
    }
    walk[i] = position
  }
  const stride = (WANDER_PER_BLOCK * start) / Math.sqrt(Math.max(1, moving))
  const mids = new Int32Array(count)
  let moved = 0
  for (let i = 0; i < count; i++) {
    moved += moves[i] ?? 0
    const share = moving === 0 ? 0 : moved / moving
    mids[i] = Math.max(
      1,
      Math.round(start + (end - start) * share + stride * ((walk[i] ?? 0) - position * share)),
    )
  }
  return mids
}

/** `E` minus `T`: mostly 1 ms (real trades: 0 in 9 %, 1 in 64 %, 2 and 3 in 9 % each). */
function drawDelayMs(random: number): number {
  return random < 0.1 ? 0 : random < 0.76 ? 1 : random < 0.88 ? 2 : 3
}

/** Around `typical`, at least 1. One in five is a round share of it, as algorithms trade. */
function drawSteps(random: Random, typical: number): number {
  const steps = random.next() < 0.2 ? typical / 2 : typical * Math.exp(random.bell() * 1.1 - 0.6)
  return Math.max(1, Math.min(MOST_STEPS, Math.round(steps)))
}
