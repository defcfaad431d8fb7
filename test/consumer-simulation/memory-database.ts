import type { Batch, RowTable } from '../../src/consumer/batch.ts'
import { type ConsumerStore, OffsetsMovedError, type Written } from '../../src/consumer/consumer-store.ts'
import { afterLoss, afterRealLoss, type FirstAfterLoss } from '../../src/consumer/retention-gaps.ts'
import type { DeadLetterRow } from '../../src/foundation/dead-letters/dead-letter.ts'
import { keyOf } from '../../src/foundation/kafka/partition.ts'
import type { Gap } from '../../src/foundation/market/gap.ts'
import { type Clock, wallMs } from '../../src/foundation/runtime/clock.ts'
import type { StoredOffset } from '../../src/foundation/store/consumer-offsets.ts'
import type { LastStored } from '../../src/foundation/store/last-stored.ts'
import { type Loss, lossKey, mergeLosses } from '../../src/foundation/store/losses.ts'
import type { LostIds } from '../../src/foundation/store/lost-ids.ts'
import { type TransactionMode, transactionsOn } from '../../src/foundation/store/postgres.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { LifeClock } from '../support/life-clock.ts'
import { eventsOf } from '../support/records.ts'
import { failure, type MemorySession, MemorySessions, type Server } from './memory-sessions.ts'

/** A price that the table refuses, like a constraint. */
export const REFUSED_PRICE = '13.13'

/** Error for a failed operation. */
const REFUSALS = ['40001', '40P01', '53300', '53100', '55P03', '57014', '57P01', '58030', null] as const

/** Everything that a transaction changes atomically. */
class State {
  readonly rows = new Set<string>()
  readonly letters = new Map<string, string>()
  readonly gaps = new Map<string, Gap>()
  readonly offsets = new Map<string, StoredOffset>()
  readonly last = new Map<string, LastStored>()
  readonly losses = new Map<string, Loss>()
  /** Ids that ingestion must request again. */
  readonly lost = new Map<string, LostIds>()
}

export type Defect =
  | 'offsets before rows'
  | 'a row left out'
  | 'a good row set aside'
  | 'a bad row stops everything'
  | 'sessions stay read-only'

/** Limit of each statement, never reached here: hanging statements end earlier. */
const LIMIT_MS = 60_000

/** A database in memory. Transactions are atomic, and fail, hang or lose their COMMIT at random. */
export class MemoryDatabase implements Server {
  state = new State()
  isAway = false
  incarnation = 0
  isInRecovery = false
  isReadOnlyByDefault = false
  /** Share of transactions that fail in some way. */
  failing = 0
  readonly faults: Record<string, number> = {}
  defect: Defect | null = null
  /** Called when a stored offset moves. */
  onAdvance: (before: StoredOffset, after: StoredOffset) => void = () => {}
  readonly #clock: Clock
  readonly #random: Random

  constructor(clock: Clock, random: Random) {
    this.#clock = clock
    this.#random = random
  }

  backUp(): State {
    return structuredClone(this.state)
  }

  get keepsSessions(): boolean {
    return this.defect === 'sessions stay read-only'
  }

  /** Ends all sessions: running transactions fail. */
  restart(): void {
    this.incarnation++
  }

  restore(backup: State): void {
    this.restart()
    this.state = backup
  }

  /** The connections of a process. */
  open(life: LifeClock): ConsumerStore {
    const sessions = new MemorySessions(this, life, this.#random)
    const run = async <Result>(work: () => Result, mode: TransactionMode = 'write') => {
      const session = await sessions.acquire()
      const transact = transactionsOn(async () => session, LIMIT_MS)
      return transact(mode, () => this.#perform(session, life, work, mode === 'write'))
    }
    return {
      write: (batch) => run(() => this.#write(batch)),
      probe: async (batch, search) => {
        await run(() => true)
        return search((table) => async (from, to) => {
          const mistaken =
            this.defect === 'a good row set aside' && table === 'trades' && this.#random.chance(0.2)
          return mistaken ? failure('23514') : refusalIn(batch, table, from, to)
        })
      },
      readOffsets: () => run(() => [...this.state.offsets.values()], 'statement'),
      readLosses: () => run(() => [...this.state.losses.values()], 'statement'),
      establish: (decide) =>
        run(() => {
          const start = decide([...this.state.offsets.values()])
          for (const offset of start.toWrite) this.state.offsets.set(keyOf(offset), offset)
          for (const loss of start.losses) this.#putLoss(loss)
          return start
        }),
      takeBack: (offset) =>
        run(() => {
          const known = this.state.offsets.get(keyOf(offset))
          if (known !== undefined && known.nextOffset >= offset.nextOffset)
            this.state.offsets.set(keyOf(offset), offset)
        }),
    }
  }

  /** Runs a transaction. The server's time passes even if the client dies before the answer. */
  async #perform<Result>(
    session: MemorySession,
    life: LifeClock,
    work: () => Result,
    writes: boolean,
  ): Promise<Result> {
    const random = this.#random
    const answer = Promise.withResolvers<Result>()
    const reject = (kind: string, error: unknown, afterMs = 1) => {
      this.faults[kind] = (this.faults[kind] ?? 0) + 1
      life.schedule(afterMs, () => answer.reject(error))
    }
    this.#clock.schedule(random.between(1, 40), () => {
      const obstacle = session.obstacle(writes)
      if (obstacle !== null) return reject(`session: ${obstacle.message}`, obstacle)
      const isUnwell = random.chance(this.failing)
      const way = isUnwell ? random.pick(['refused', 'refused', 'lost', 'lost', 'hangs'] as const) : 'well'
      if (way === 'refused') return reject('refused', failure(random.pick(REFUSALS)))
      // A COMMIT without an answer may or may not have succeeded.
      const isDone = way === 'well' || random.chance(0.5)
      if (isDone) this.#settle(work, way === 'well' ? life : null, answer)
      if (way === 'hangs') reject('hangs', failure(null), random.between(5000, 60_000))
      if (way === 'lost') reject(isDone ? 'COMMIT lost, done' : 'COMMIT lost, not done', failure(null))
    })
    return answer.promise
  }

  /** @param listener of the answer */
  #settle<Result>(
    work: () => Result,
    listener: LifeClock | null,
    answer: PromiseWithResolvers<Result>,
  ): void {
    try {
      const result = work()
      listener?.schedule(this.#random.between(1, 10), () => answer.resolve(result))
    } catch (error) {
      listener?.schedule(1, () => answer.reject(error))
    }
  }

  #write(batch: Batch): Written {
    const { state } = this
    const refusal = refusalIn(batch, 'trades', 0, batch.rows.trades.length)
    if (refusal !== null) throw this.defect === 'a bad row stops everything' ? failure('42601') : refusal
    const steps = [...batch.steps.values()]
    const ours = steps.filter((step) => {
      const known = state.offsets.get(keyOf(step))
      return known === undefined || known.topicId === step.topicId
    })
    const isContinued = ours.every(
      (step) => (state.offsets.get(keyOf(step))?.nextOffset ?? -1) >= step.firstOffset,
    )
    if (!isContinued) throw new OffsetsMovedError()
    if (this.defect === 'offsets before rows' && this.#random.chance(0.02)) {
      this.#advance(steps)
      throw failure('57P01')
    }
    const firsts = afterRealLoss(batch.firstsAfterLoss)
    const { windows, lost } = afterLoss(firsts, this.#lastStored(firsts), wallMs(this.#clock))
    for (const gap of windows) this.#putGap(gap)
    for (const { key, lost: one } of lost) if (!state.lost.has(key)) state.lost.set(key, one)
    for (const loss of batch.losses.values()) this.#putLoss(loss)
    const inserted = this.#insert(batch)
    const lettersBefore = state.letters.size
    for (const copy of batch.copies)
      if (!state.letters.has(placeOf(copy))) state.letters.set(placeOf(copy), copy.reason)
    const restored = state.letters.size - lettersBefore
    this.#advance(ours)
    return {
      inserted,
      deadLettered: batch.found.length + batch.mirrored.length + restored,
      rows: [],
      isOfRecreated: ours.length < steps.length,
    }
  }

  #insert(batch: Batch): number {
    const { rows, letters, last } = this.state
    const before = rows.size
    const skipped = this.defect === 'a row left out' && this.#random.chance(0.02) ? 0 : -1
    let i = 0
    for (const { symbol, id, epoch, tradeTimeMs } of eventsOf(batch, 'trades')) {
      if (i++ === skipped) continue
      rows.add(`${symbol.text} trade ${id}`)
      keepLater(last, { symbol: symbol.text, eventType: 'trade', epoch, id, timeMs: tradeTimeMs })
    }
    for (const { symbol, id, receivedUs } of eventsOf(batch, 'book_ticker')) {
      rows.add(`${symbol.text} bookTicker ${id}`)
      const timeMs = Math.floor(receivedUs / 1000)
      keepLater(last, { symbol: symbol.text, eventType: 'bookTicker', epoch: 0, id: null, timeMs })
    }
    for (const row of batch.found) letters.set(placeOf(row), row.reason)
    let moved = 0
    for (const gap of batch.gaps) if (this.#putGap(gap)) moved++
    return rows.size - before + moved
  }

  #putLoss(loss: Loss): void {
    const { losses } = this.state
    losses.set(lossKey(loss), mergeLosses(losses.get(lossKey(loss)), loss))
  }

  #putGap(gap: Gap): boolean {
    const known = this.state.gaps.get(gap.gap_id)
    if (known !== undefined && known.revision >= gap.revision) return false
    this.state.gaps.set(gap.gap_id, gap)
    return true
  }

  #advance(steps: Iterable<StoredOffset>): void {
    for (const step of steps) {
      const before = this.state.offsets.get(keyOf(step))
      if (before === undefined || before.nextOffset >= step.nextOffset) continue
      const { topic, topicId, partition, nextOffset, leaderEpoch } = step
      const after = { topic, topicId, partition, nextOffset, leaderEpoch }
      this.state.offsets.set(keyOf(step), after)
      this.onAdvance(before, after)
    }
  }

  #lastStored(asked: readonly FirstAfterLoss[]): LastStored[] {
    return asked.flatMap(({ symbol, eventType }) => this.state.last.get(`${symbol} ${eventType}`) ?? [])
  }
}

function placeOf({ topic, partition, offset }: DeadLetterRow): string {
  return `${topic}:${partition}:${offset}`
}

function keepLater(last: Map<string, LastStored>, row: LastStored): void {
  const key = `${row.symbol} ${row.eventType}`
  const known = last.get(key)
  if (known === undefined || (row.id ?? row.timeMs) >= (known.id ?? known.timeMs)) last.set(key, row)
}

function refusalIn(batch: Batch, table: RowTable, from: number, to: number): Error | null {
  if (table !== 'trades') return null
  const events = eventsOf(batch, 'trades', from, to)
  return events.some(({ price }) => price === REFUSED_PRICE) ? failure('23514') : null
}
