import type { FetchTrades, RestTrade } from '../binance/trade-rest.ts'
import { REST_LIMIT, REST_WEIGHT } from '../binance/trade-rest.ts'
import type { WeightBudget } from '../binance/weight-budget.ts'
import { countIds, type IdRange } from '../market/id-ranges.ts'
import type { Logger } from '../telemetry/log.ts'
import { type BackoffPolicy, delayFor } from '../timing/backoff.ts'
import { type Clock, sleepOn } from '../timing/clock.ts'
import { Wake } from '../timing/wake.ts'
import type { GapLedger, IdGap } from './gap-ledger.ts'

export interface BackfillOptions {
  readonly fetch: FetchTrades
  readonly budget: WeightBudget
  readonly clock: Clock
  /** A number in [0, 1). */
  readonly random: () => number
  readonly backoff: BackoffPolicy
  /** A larger gap is not filled. */
  readonly maxIds: number
}

/** What backfill needs of the rest of ingestion. */
export interface BackfillPorts {
  /** The ids of a gap that have not been forwarded. */
  missingIn(gap: IdGap): IdRange[]
  /** Sends trades of a gap on their way to Kafka. */
  forward(gap: IdGap, trades: readonly RestTrade[]): void
  /** Resolves when all that was sent on its way so far is acknowledged; rejects when the signal aborts. */
  acknowledged(signal: AbortSignal): Promise<void>
  /** Resolves when the queue has room. */
  whenRoom(signal: AbortSignal): Promise<void>
}

/** The exchange answers from a database that may lag behind its streams by minutes. */
const NOT_YET_LIMIT_MS = 5 * 60_000
/** As often must it answer the same before an id counts as absent. */
const EQUAL_ANSWERS = 3

interface Trial {
  retryAtMs: number
  failures: number
  /** Since when what is asked for was not there; null when it was, or nothing was asked yet. */
  emptySinceMs: number | null
  /** The answer that jumped over ids, as text, and how often it came. */
  jump: { answer: string; times: number } | null
}

/**
 * Fetches what is missing, smallest gap first, one request at a time, within the weight budget; live events go on
 * meanwhile. A gap is `filled` only after every message is acknowledged. Specification: B1 to B8.
 */
export class Backfill {
  readonly #options: BackfillOptions
  readonly #ports: BackfillPorts
  readonly #ledger: GapLedger
  readonly #log: Logger
  readonly #wake = new Wake()
  readonly #stopping = new AbortController()
  readonly #trials = new Map<string, Trial>()
  #running: Promise<void> | null = null
  #refused = false
  /** Trades and aggTrades forwarded. */
  backfilled = 0

  constructor(options: BackfillOptions, ports: BackfillPorts, ledger: GapLedger, log: Logger) {
    this.#options = options
    this.#ports = ports
    this.#ledger = ledger
    this.#log = log
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** To be called when a gap was opened. */
  notice(): void {
    this.#wake.ring()
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    this.#wake.ring()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    const { clock } = this.#options
    while (!signal.aborted) {
      const nowMs = clock.monotonicMs()
      const gap = this.#nextGap(nowMs)
      try {
        if (gap === null) await this.#untilDue(nowMs)
        else await this.#work(gap)
      } catch (error) {
        if (!signal.aborted) throw error
      }
    }
  }

  #nextGap(nowMs: number): IdGap | null {
    const due = this.#ledger.openGaps.filter(
      ({ gap_id }) => (this.#trials.get(gap_id)?.retryAtMs ?? 0) <= nowMs,
    )
    return due.reduce<IdGap | null>(
      (best, gap) => (best === null || size(gap) < size(best) ? gap : best),
      null,
    )
  }

  async #untilDue(nowMs: number): Promise<void> {
    const times = this.#ledger.openGaps.map(({ gap_id }) => this.#trials.get(gap_id)?.retryAtMs ?? nowMs)
    if (times.length === 0) return this.#wake.wait()
    const cancel = this.#options.clock.schedule(Math.max(1, Math.min(...times) - nowMs), () =>
      this.#wake.ring(),
    )
    await this.#wake.wait()
    cancel()
  }

  async #work(gap: IdGap): Promise<void> {
    const missing = this.#ports.missingIn(gap)
    const [next] = missing
    if (next === undefined) return this.#finish(gap)
    if (this.#refused) return this.#giveUp(gap, next, 'the exchange refuses this region')
    if (countIds(missing) > this.#options.maxIds)
      return this.#giveUp(gap, { from: next.from, to: gap.to_id }, 'too large')
    await this.#ports.whenRoom(this.#stopping.signal)
    await this.#spend(REST_WEIGHT[gap.event_type])
    const limit = Math.min(REST_LIMIT, next.to - next.from + 1)
    const answer = await this.#options.fetch({
      type: gap.event_type,
      symbol: gap.symbol,
      fromId: next.from,
      limit,
    })
    this.#stopping.signal.throwIfAborted()
    // Meanwhile the exchange may have begun its ids anew: the answer would be of other trades.
    if (!this.#ledger.isOpen(gap)) return
    const nowMs = this.#options.clock.monotonicMs()
    switch (answer.kind) {
      case 'rows':
        if (answer.usedWeight !== null) this.#options.budget.used(answer.usedWeight, nowMs)
        return this.#take(gap, next, answer.rows, nowMs)
      case 'wait':
        this.#log.warn(
          { status: answer.status, waitMs: answer.waitMs },
          'The exchange tells backfill to wait',
        )
        this.#options.budget.wait(answer.waitMs, nowMs)
        return
      case 'refused':
        this.#log.error(
          { fix: 'Set BINANCE_REST_URL to the host for this region.' },
          'The exchange refuses this region (HTTP 451): gaps cannot be filled',
        )
        this.#refused = true
        return
      case 'failed': {
        const trial = this.#trial(gap)
        trial.failures++
        trial.retryAtMs = nowMs + delayFor(trial.failures, this.#options.backoff, this.#options.random())
        this.#log.warn({ gap: gap.gap_id }, `Backfill failed, trying again: ${answer.reason}`)
        return
      }
    }
  }

  async #take(gap: IdGap, next: IdRange, rows: readonly RestTrade[], nowMs: number): Promise<void> {
    const run = contiguousFrom(next.from, rows).filter(({ id }) => id <= next.to)
    if (run.length > 0) {
      this.#ports.forward(gap, run)
      this.backfilled += run.length
      this.#trials.delete(gap.gap_id)
      return
    }
    const first = rows.find(({ id }) => id > next.from)
    if (first === undefined) await this.#notYet(gap, next, nowMs)
    else await this.#jumped(gap, { from: next.from, to: Math.min(next.to, first.id - 1) }, rows, nowMs)
  }

  /** The exchange does not have it yet, or never will. */
  async #notYet(gap: IdGap, next: IdRange, nowMs: number): Promise<void> {
    const trial = this.#trial(gap)
    trial.emptySinceMs ??= nowMs
    if (nowMs - trial.emptySinceMs >= NOT_YET_LIMIT_MS) return this.#giveUp(gap, next, 'absent at exchange')
    trial.failures++
    trial.retryAtMs = nowMs + delayFor(trial.failures, this.#options.backoff, this.#options.random())
  }

  /** The answer begins behind what was asked for: moved forward to the oldest it keeps, or a hole of its own. */
  async #jumped(gap: IdGap, lost: IdRange, rows: readonly RestTrade[], nowMs: number): Promise<void> {
    const trial = this.#trial(gap)
    const answer = `${lost.from}..${lost.to} before ${rows[0]?.id}`
    trial.jump =
      trial.jump?.answer === answer ? { answer, times: trial.jump.times + 1 } : { answer, times: 1 }
    if (trial.jump.times >= EQUAL_ANSWERS) return this.#giveUp(gap, lost, 'absent at exchange')
    trial.failures++
    trial.retryAtMs = nowMs + delayFor(trial.failures, this.#options.backoff, this.#options.random())
  }

  async #giveUp(gap: IdGap, lost: IdRange, reason: string): Promise<void> {
    // What lies before the lost ids is said to be filled with them.
    await this.#ports.acknowledged(this.#stopping.signal)
    this.#stopping.signal.throwIfAborted()
    if (!this.#ledger.isOpen(gap)) return
    this.#log.error(
      { symbol: gap.symbol, type: gap.event_type, ...lost, reason },
      'Ids are lost: they cannot be had from the exchange',
    )
    this.#trials.delete(gap.gap_id)
    this.#ledger.unrecoverable(gap, lost, reason)
  }

  async #finish(gap: IdGap): Promise<void> {
    await this.#ports.acknowledged(this.#stopping.signal)
    this.#stopping.signal.throwIfAborted()
    this.#trials.delete(gap.gap_id)
    if (this.#ledger.isOpen(gap)) this.#ledger.filled(gap)
  }

  async #spend(weight: number): Promise<void> {
    const { budget, clock } = this.#options
    for (
      let waitMs = budget.take(weight, clock.monotonicMs());
      waitMs > 0;
      waitMs = budget.take(weight, clock.monotonicMs())
    ) {
      await sleepOn(clock, waitMs, this.#stopping.signal)
    }
  }

  #trial(gap: IdGap): Trial {
    const known = this.#trials.get(gap.gap_id)
    if (known !== undefined) return known
    const trial: Trial = { retryAtMs: 0, failures: 0, emptySinceMs: null, jump: null }
    this.#trials.set(gap.gap_id, trial)
    return trial
  }
}

function size({ from_id, to_id }: IdGap): number {
  return to_id - from_id + 1
}

/** The rows from `from` on, as far as their ids follow each other. */
function contiguousFrom(from: number, rows: readonly RestTrade[]): RestTrade[] {
  const run: RestTrade[] = []
  for (const row of rows) {
    if (row.id === from + run.length) run.push(row)
    else if (row.id > from + run.length) break
  }
  return run
}
