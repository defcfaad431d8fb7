import { keyOf } from '../../src/foundation/kafka/partition.ts'
import { wallMs } from '../../src/foundation/runtime/clock.ts'
import { mulberry32, Random } from '../../src/sandbox/simulator/market/random.ts'
import { settle, VirtualClock } from '../support/virtual-clock.ts'
import { SYMBOLS, SymbolFeed } from './market.ts'
import { type Defect, MemoryDatabase } from './memory-database.ts'
import { MemoryGroup } from './memory-group.ts'
import { type LogMessage, MemoryLog } from './memory-log.ts'
import { ConsumerProcess } from './process.ts'

export interface WorldOptions {
  readonly seed: number
  /** Duration with faults; afterwards everything has five minutes to recover. */
  readonly virtualMs: number
  readonly defect?: Defect | 'members that claim everything'
}

const PROCESSES = 3

/**
 * Up to three consumers with the real worker, on a virtual clock, against an in-memory Kafka, group
 * and database, with faults drawn from one seed. The same seed gives the same run.
 */
export class World {
  readonly clock = new VirtualClock()
  readonly random: Random
  readonly log: MemoryLog
  readonly group: MemoryGroup
  readonly database: MemoryDatabase
  readonly faults: Record<string, number> = {}
  /** Violations found during the run. */
  readonly violations: string[] = []
  readonly processes: ConsumerProcess[] = []
  messages = 0
  readonly #feeds: ReadonlyArray<{
    readonly feed: SymbolFeed
    readonly partition: number
    readonly everyMs: number
  }>
  readonly #reached = new Map<string, number>()
  readonly #options: WorldOptions
  #isQuiet = false
  #backup: ReturnType<MemoryDatabase['backUp']> | null = null

  constructor(options: WorldOptions) {
    this.#options = options
    this.random = new Random(options.seed, mulberry32)
    this.log = new MemoryLog(['trades', 'quotes', 'gaps', 'letters'], this.random)
    this.group = new MemoryGroup(this.clock, this.random, this.log.partitions)
    this.database = new MemoryDatabase(this.clock, this.random)
    this.#feeds = SYMBOLS.map(({ symbol, ...rest }) => ({
      feed: new SymbolFeed(symbol, this.random),
      ...rest,
    }))
    this.database.onAdvance = (before, after) => this.#checkAdvance(before, after)
    this.group.onCommit = ({ topic, partition, nextOffset }) => {
      if (nextOffset > (this.#reached.get(keyOf({ topic, partition })) ?? 0))
        this.violations.push(`P5 ${topic}:${partition} was committed at ${nextOffset}, which is not stored`)
    }
    if (options.defect === 'members that claim everything') this.group.claimsAll = true
    else this.database.defect = options.defect ?? null
  }

  async run(): Promise<void> {
    for (const { feed, partition, everyMs } of this.#feeds) {
      this.#produceAll(feed, partition)
      this.#often(everyMs, () => this.#produce('trades', partition, feed.trade(this.#wallMs, false)))
      this.#often(everyMs, () => this.#produce('quotes', partition, feed.quote(this.#wallMs)))
    }
    for (let i = 0; i < PROCESSES; i++) this.#start()
    this.database.failing = 0.05
    this.#often(40_000, () => this.#crash())
    this.#often(90_000, () => this.#stopOne())
    this.#often(70_000, () =>
      this.#fault('isolated member', this.group.isolate(this.random.between(3000, 40_000))),
    )
    this.#often(120_000, () => this.#brokerAway())
    this.#often(60_000, () => this.#ailOne())
    this.#often(100_000, () => this.#databaseAway())
    this.#often(100_000, () => this.#failOver())
    this.#often(60_000, () => this.#backUp())
    this.#often(200_000, () => this.#restore())
    this.#often(80_000, () => this.#retain())
    await this.clock.advance(this.#options.virtualMs)
    this.#isQuiet = true
    this.database.failing = 0
    // The next event of a symbol reveals its losses.
    for (const { feed, partition } of this.#feeds) this.#produceAll(feed, partition)
    await this.clock.advance(5 * 60_000)
    await settle()
  }

  get #wallMs(): number {
    return wallMs(this.clock)
  }

  get alive(): ConsumerProcess[] {
    return this.processes.filter(({ life, isStopping }) => life.isAlive && !isStopping)
  }

  #often(meanMs: number, act: () => void): void {
    this.clock.schedule(this.random.interval(meanMs), () => {
      if (this.#isQuiet) return
      act()
      this.#often(meanMs, act)
    })
  }

  #fault(name: string, happened = true): void {
    if (happened) this.faults[name] = (this.faults[name] ?? 0) + 1
  }

  #produce(topic: string, partition: number, message: LogMessage): void {
    this.messages++
    this.log.append(topic, partition, message)
  }

  #produceAll(feed: SymbolFeed, partition: number): void {
    this.#produce('trades', partition, feed.trade(this.#wallMs, true))
    this.#produce('quotes', partition, feed.quote(this.#wallMs))
  }

  #start(): void {
    this.processes.push(new ConsumerProcess(this))
  }

  #restartLater(): void {
    this.clock.schedule(this.random.between(500, 30_000), () => this.#start())
  }

  #crash(): void {
    const one = this.random.pickIfAny(this.alive)
    if (one === undefined) return
    this.#fault('crash')
    one.crash()
    this.#restartLater()
  }

  #stopOne(): void {
    const one = this.random.pickIfAny(this.alive)
    if (one === undefined) return
    this.#fault('stop')
    one.stop().then(
      () => {},
      (error: unknown) => this.violations.push(`S1 a stop failed: ${String(error)}`),
    )
    this.clock.schedule(12_000, () => one.crash())
    this.#restartLater()
  }

  #brokerAway(): void {
    if (this.log.isAway) return
    this.#forAWhile('broker away', 25_000, (isAway) => {
      this.log.isAway = isAway
      this.group.isAway = isAway
    })
  }

  /** Makes one partition unreadable. */
  #ailOne(): void {
    const one = this.random.pick(this.log.partitions)
    if (one.ailment !== null) return
    const ailment = this.random.pick(['no leader', 'NOT_LEADER_OR_FOLLOWER'] as const)
    this.#forAWhile(`partition ailing: ${ailment}`, 60_000, (ails) => {
      one.ailment = ails ? ailment : null
    })
  }

  #databaseAway(): void {
    const { database } = this
    if (database.isAway) return
    this.#forAWhile('database away', 40_000, (isAway) => {
      database.isAway = isAway
    })
  }

  /** Fails over to a server that refuses writes: one in recovery, or one set to read-only. */
  #failOver(): void {
    const { database } = this
    if (database.isInRecovery || database.isReadOnlyByDefault) return
    const way = this.random.pick(['isInRecovery', 'isReadOnlyByDefault'] as const)
    database.restart()
    this.#forAWhile(`failover: ${way}`, 40_000, (refuses) => {
      database[way] = refuses
    })
  }

  #forAWhile(fault: string, maxMs: number, set: (isOn: boolean) => void): void {
    this.#fault(fault)
    set(true)
    this.clock.schedule(this.random.between(500, maxMs), () => set(false))
  }

  /** Backs up once every symbol has rows: the losses of a symbol without rows cannot be determined. */
  get #isWarm(): boolean {
    return this.database.state.last.size === 2 * SYMBOLS.length
  }

  #backUp(): void {
    if (this.#isWarm) this.#backup = this.database.backUp()
  }

  #restore(): void {
    if (this.#backup === null) return
    this.#fault('restored backup')
    this.database.restore(this.#backup)
    this.#backup = this.database.backUp()
  }

  /** Removes messages from a partition, read or not. */
  #retain(): void {
    if (!this.#isWarm) return
    const one = this.random.pickIfAny(
      this.log.partitions.filter(({ topic }) => topic === 'trades' || topic === 'quotes'),
    )
    if (one === undefined) return
    const stored = this.database.state.offsets.get(keyOf(one))?.nextOffset ?? 0
    const end = one.messages.length
    const overtakes = end > stored && this.random.chance(0.5)
    const to = overtakes
      ? stored + 1 + this.random.whole(0, end - stored - 1)
      : this.random.whole(0, stored + 1 - 1)
    const start = Math.max(one.start, to)
    this.#fault(start > stored ? 'retention that overtakes' : 'retention')
    one.start = start
  }

  /** An offset may pass only messages that are stored, rejected or expired. */
  #checkAdvance(
    before: { topic: string; partition: number; nextOffset: number },
    after: { nextOffset: number },
  ): void {
    const { topic, partition } = before
    const { start, messages } = this.log.partition(topic, partition)
    const { rows, letters } = this.database.state
    for (let offset = Math.max(start, before.nextOffset); offset < after.nextOffset; offset++) {
      const meant = messages[offset]?.meant
      const isThere =
        meant?.fate === 'letter' ||
        (meant?.fate === 'stored'
          ? rows.has(meant.row ?? '')
          : letters.has(`${topic}:${partition}:${offset}`))
      if (!isThere) this.violations.push(`P5 ${topic}:${partition} moved past ${offset}, which is not stored`)
    }
    const key = keyOf(before)
    this.#reached.set(key, Math.max(this.#reached.get(key) ?? 0, after.nextOffset))
  }
}
