import { isDeepStrictEqual } from 'node:util'
import { type Refusal, ruleOf } from '../../foundation/binance/refusal.ts'
import { REST_LIMIT, type RestOutcome, type RestTrade } from '../../foundation/binance/trade-rest.ts'
import { countIds, type IdRange } from '../../foundation/market/id-ranges.ts'
import { outsideText } from '../../foundation/runtime/outside-text.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { IngestionStatus } from '../../foundation/telemetry/status.ts'
import type { GapLedger } from '../continuity/gap-ledger.ts'
import { isTradeGap, type TradeGap } from '../continuity/gap-rows.ts'
import { BackfillAttempt, type Negative, type RetryTiming } from './backfill-attempt.ts'
import { BackfillSchedule, type GapTask } from './backfill-schedule.ts'
import type { RestCaller } from './rest-caller.ts'
import { StoppableLoop } from './stoppable-loop.ts'

export interface BackfillOptions extends RetryTiming {
  readonly rest: RestCaller
  readonly maxIds: number
}

/** What backfill needs from the rest of ingestion. */
export interface BackfillPorts {
  /** Returns the ids of a gap that were not forwarded. */
  missingIn(gap: TradeGap): IdRange[]
  /** Notes that ids will never be forwarded. */
  abandoned(gap: TradeGap, ids: IdRange): void
  forward(gap: TradeGap, trades: readonly RestTrade[]): void
  /** Keeps a trade whose id another trade has; the other one is forwarded. */
  keepSecond(gap: TradeGap, trade: RestTrade): void
  isHeld(gap: TradeGap): boolean
  /** Resolves when everything sent so far is acknowledged, discarded or set aside; rejects on abort. */
  settled(signal: AbortSignal): Promise<void>
  whenRoom(signal: AbortSignal): Promise<void>
}

/**
 * Fetches missing trades in pages, smallest gap first. Live events continue meanwhile and may fill
 * or end a gap during any wait. A gap becomes `filled` only after Kafka has acknowledged every
 * message. Specification: B1 to B9.
 */
export class Backfill {
  readonly #options: BackfillOptions
  readonly #ports: BackfillPorts
  readonly #ledger: GapLedger
  readonly #log: Logger
  readonly #schedule: BackfillSchedule
  readonly #loop: StoppableLoop
  /** How many gaps had been opened when the schedule was brought up to date. */
  #known = -1
  /** Trades and aggTrades forwarded so far. */
  backfilled = 0

  constructor(options: BackfillOptions, ports: BackfillPorts, ledger: GapLedger, log: Logger) {
    this.#options = options
    this.#ports = ports
    this.#ledger = ledger
    this.#log = log
    this.#schedule = new BackfillSchedule((gap) => ledger.isOpen(gap), options)
    this.#loop = new StoppableLoop(ledger.news, () => this.#turn())
  }

  /** Returns the open gaps and what prevents filling each. */
  status(): IngestionStatus['openGaps'] {
    return this.#ledger.openGaps.map((gap) => {
      const { gap_id, from_id, to_id, cause } = gap
      return { gapId: gap_id, fromId: from_id, toId: to_id, cause, ...this.#schedule.problemOf(gap) }
    })
  }

  start(): void {
    this.#loop.start()
  }

  /** Stops without waiting for the exchange: a running request is aborted. */
  stop(): Promise<void> {
    return this.#loop.stop()
  }

  async #turn(): Promise<void> {
    const { news, added } = this.#ledger
    if (this.#known !== added)
      for (const gap of this.#ledger.openGaps.filter(isTradeGap)) this.#schedule.add(gap)
    this.#known = added
    const task = this.#schedule.take()
    const { nextDueMs } = this.#schedule
    if (task === null)
      return news.wait(
        nextDueMs === null ? undefined : Math.max(1, nextDueMs - this.#options.clock.monotonicMs()),
      )
    try {
      await this.#work(task)
    } finally {
      this.#schedule.putBack(task)
    }
  }

  async #work(task: GapTask): Promise<void> {
    const { gap } = task
    const { rest, maxIds } = this.#options
    const { signal } = this.#loop
    const missing = this.#ports.missingIn(gap)
    const [next] = missing
    if (this.#ports.isHeld(gap)) return task.attempt.failed()
    if (next === undefined) return this.#finish(task)
    if (countIds(missing) > maxIds) return this.#giveUp(task, { from: next.from, to: gap.to_id }, 'too large')
    await this.#ports.whenRoom(signal)
    if (!this.#schedule.isCurrent(task)) return
    // One more, because the exchange may have two trades under the last id.
    const limit = Math.min(REST_LIMIT, next.to - next.from + 2)
    const request = { type: gap.event_type, symbol: gap.symbol, fromId: next.from, limit }
    const answer = await rest.ask(request, 'patient', signal)
    // If the gap has closed meanwhile, or the exchange has restarted its ids, the answer is about
    // other trades.
    if (this.#schedule.isCurrent(task)) await this.#take(task, next, answer)
  }

  async #take(task: GapTask, next: IdRange, answer: RestOutcome): Promise<void> {
    switch (answer.kind) {
      case 'rows':
        return this.#takeRows(task, next, answer.rows)
      case 'refused':
        return this.#refused(task, next, answer.refusal)
      case 'failed':
        this.#warn(task, answer.reason, '')
        task.attempt.failed()
    }
  }

  async #refused(task: GapTask, next: IdRange, refusal: Refusal): Promise<void> {
    const { isFinal, stops, wait, fix } = ruleOf(refusal)
    const { reason } = refusal
    // A refusal that stops all of REST is logged elsewhere, once.
    if (stops === 'request') this.#warn(task, reason, fix)
    // The missing ids existed, so the exchange has since dropped the symbol.
    if (isFinal) return this.#negative(task, next, 'rejected', reason, outsideText(`delisted: ${reason}`))
    task.attempt.failed(Math.max(this.#options.backoff.maxMs, stops === 'request' ? wait.maxMs : 0))
  }

  /** Logs a reason once, and again only after no gap has it any more. */
  #warn({ gap, attempt }: GapTask, reason: string, fix: string): void {
    attempt.fix = fix
    attempt.isFailing = true
    if (attempt.problem === reason) return
    const isKnown = this.#schedule.hasProblem(reason)
    attempt.problem = reason
    if (isKnown) return
    const { symbol, event_type: type, gap_id } = gap
    this.#log.warn(
      { symbol, type, gap: gap_id, ...(fix === '' ? {} : { fix }) },
      `Backfill failed, retrying: ${reason}`,
    )
  }

  async #takeRows(task: GapTask, next: IdRange, rows: readonly RestTrade[]): Promise<void> {
    const { gap } = task
    const { run, second } = contiguous(next, rows)
    if (run.length > 0) {
      for (const trade of second) this.#ports.keepSecond(gap, trade)
      // Trades that a live event has delivered meanwhile are not sent again.
      const wanted = within(this.#ports.missingIn(gap), run)
      if (wanted.length > 0) this.#ports.forward(gap, wanted)
      this.backfilled += wanted.length
      task.attempt = new BackfillAttempt(this.#options)
      return
    }
    const first = rows.find(({ id }) => id > next.from)
    if (first === undefined) return this.#negative(task, next, 'empty', `from ${next.from}`)
    // The answer starts at a later id: the exchange keeps no older trades, or it has a hole here.
    const lost = { from: next.from, to: Math.min(next.to, first.id - 1) }
    return this.#negative(task, lost, 'jump', `${lost.from}..${lost.to} before ${rows[0]?.id}`)
  }

  /** Handles an answer without the ids: they are not there yet, or never will be. */
  async #negative(
    task: GapTask,
    lost: IdRange,
    kind: Negative,
    answer: string,
    reason = 'absent at exchange',
  ): Promise<void> {
    const { gap, attempt } = task
    // A live event arrived meanwhile, so the answer no longer matches the question.
    if (this.#missingOf(gap, lost) < lost.to - lost.from + 1) return
    attempt.problem = reason
    attempt.fix = ''
    attempt.isFailing = false
    if (attempt.negative(kind, answer)) await this.#giveUp(task, lost, reason)
  }

  async #giveUp(task: GapTask, lost: IdRange, reason: string): Promise<void> {
    const { gap } = task
    const missing = this.#missingOf(gap, lost)
    // Ids below the lost ones become `filled` with this, so Kafka must have them.
    if (!(await this.#acknowledged(gap))) return task.attempt.failed()
    // A live event that has arrived meanwhile is neither lost nor acknowledged: the next turn
    // decides.
    if (!this.#schedule.isCurrent(task) || this.#missingOf(gap, lost) !== missing) return
    this.#log.error(
      { symbol: gap.symbol, type: gap.event_type, ...lost, reason },
      'Ids are lost: the exchange does not have them',
    )
    this.#ledger.unrecoverable(gap, lost, reason)
    this.#ports.abandoned(gap, lost)
  }

  async #finish(task: GapTask): Promise<void> {
    const { gap } = task
    if (!(await this.#acknowledged(gap))) return task.attempt.failed()
    // Some trades may have been discarded.
    if (this.#schedule.isCurrent(task) && this.#ports.missingIn(gap).length === 0) this.#ledger.filled(gap)
  }

  /** @returns false if the gap's partition is set aside */
  async #acknowledged(gap: TradeGap): Promise<boolean> {
    const { signal } = this.#loop
    await this.#ports.settled(signal)
    signal.throwIfAborted()
    return !this.#ports.isHeld(gap)
  }

  #missingOf(gap: TradeGap, { from, to }: IdRange): number {
    return this.#ports
      .missingIn(gap)
      .reduce((sum, hole) => sum + Math.max(0, Math.min(hole.to, to) - Math.max(hole.from, from) + 1), 0)
  }
}

/** Returns the rows of a range as long as their ids are contiguous, and rows that repeat an id. */
function contiguous(range: IdRange, rows: readonly RestTrade[]): Record<'run' | 'second', RestTrade[]> {
  const run: RestTrade[] = []
  const second: RestTrade[] = []
  for (const row of rows) {
    if (row.id > range.to || row.id > range.from + run.length) break
    if (row.id === range.from + run.length) run.push(row)
    else if (row.id >= range.from && !isDeepStrictEqual(row, run[row.id - range.from])) second.push(row)
  }
  return { run, second }
}

/** Returns the rows whose ids lie in the ranges; both are ascending. */
function within(ranges: readonly IdRange[], rows: readonly RestTrade[]): RestTrade[] {
  let at = 0
  return rows.filter(({ id }) => {
    for (let range = ranges[at]; range !== undefined && range.to < id; range = ranges[at]) at++
    return (ranges[at]?.from ?? Number.POSITIVE_INFINITY) <= id
  })
}
