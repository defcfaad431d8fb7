import { createHash } from 'node:crypto'
import { pino } from 'pino'
import { GAP, type Gap } from '../../src/foundation/market/gap.ts'
import { RECORDING } from '../../src/foundation/market/recording.ts'
import { loadSettings } from '../../src/foundation/settings/load.ts'
import type { IngestionStatus } from '../../src/foundation/telemetry/status.ts'
import { type IngestionConfig, ingestionConfig } from '../../src/ingestion/config.ts'
import { CLOCK_LIMITS, type ClockLimits } from '../../src/ingestion/messages/receipt-clock.ts'
import { Ingestion } from '../../src/ingestion/service.ts'
import { hash32, mulberry32, Random } from '../../src/sandbox/simulator/market/random.ts'
import { LifeClock } from '../support/life-clock.ts'
import { VirtualClock } from '../support/virtual-clock.ts'
import { WallClock } from '../support/wall-clock.ts'
import { SimulatedExchange } from './exchange.ts'
import { strike } from './faults.ts'
import { type Appended, type Copies, type KafkaOptions, SimulatedKafka } from './kafka.ts'
import { type DepthUpdate, Market } from './market.ts'
import { SimulatedRest } from './rest.ts'
import { StoredEvents } from './stored-events.ts'

const TOPICS = { trades: 't', bookTicker: 'b', depth: 'o', gaps: 'g', checkpoints: 'c', deadLetters: 'd' }
/** The topic of which messages are lost or doubled. */
const PLANTED = {
  lose: TOPICS.trades,
  double: TOPICS.trades,
  'lose gap': TOPICS.gaps,
  'lose update': TOPICS.depth,
}
const LOG = pino({ level: 'silent' })

const MINUTE_MS = 60_000
/** A symbol counts as trading after this time since it resumed. */
const QUIET_MS = 20 * MINUTE_MS
/** Ingestion has checked its clocks after this time. */
const TICK_MS = 300
const HOUR_MS = 3_600_000

/** Parameters of a run; durations in virtual milliseconds. */
export interface WorldOptions {
  readonly seed: number
  readonly virtualMs: number
  /** Symbols and the mean time between their occurrences. */
  readonly symbols: Readonly<Record<string, number>>
  readonly faultEveryMs: number
  /** Also faults within the Kafka cluster. */
  readonly clusterFaults?: boolean
  /** Records every symbol of an exchange that lists and halts symbols and gives unexpected answers. */
  readonly exchangeFaults?: boolean
  /** Only faults that lose no frame. */
  readonly isLossless?: boolean
  /** Most occurrences in a burst around each fault. */
  readonly stormOccurrences: number
  /** Limits other than the real ones: a defect that the checks must find. */
  readonly clockLimits?: ClockLimits
  /** A defect of Kafka that the checks must find. */
  readonly defect?: KafkaOptions['defect']
  /** Whether order books are recorded; default: drawn from the seed. */
  readonly depth?: boolean
  readonly planted?: { readonly kind: keyof typeof PLANTED; readonly oneIn: number }
}

/** An update that a process has read from a socket, and when in true time. */
type ReadUpdate = DepthUpdate & { readonly atMs: number }

/** One process of ingestion. */
interface Life {
  readonly clock: LifeClock
  readonly ingestion: Ingestion
  readonly incarnation: number
  stopping: boolean
  /** Another process ran over the same symbols at the same time. */
  overlapped: boolean
}

/**
 * The real ingestion on a virtual clock, against an in-memory exchange, REST interface and Kafka,
 * with faults drawn from one seed. The same seed gives the same run, byte for byte.
 */
export class World {
  readonly options: WorldOptions
  readonly clock = new VirtualClock()
  readonly wall = new WallClock(this.clock)
  readonly market: Market
  readonly exchange: SimulatedExchange
  readonly rest: SimulatedRest
  readonly kafka: SimulatedKafka
  readonly stored: StoredEvents
  /** The final state of every gap, as in the table: the highest revision. */
  readonly ledger = new Map<string, Gap>()
  readonly faults: Record<string, number> = {}
  /** Violations found during the run. */
  readonly complaints: string[] = []
  /** Symbols that a process saw being listed: they are recorded from their first id. */
  readonly listed = new Set<string>()
  /** By its number: when a process started, in true time, and the depth updates that it has read. */
  readonly processes = new Map<number, { readonly bornMs: number; readonly read: ReadUpdate[] }>()
  /** By the id of a ledger row: the process that entered it. */
  readonly enteredBy = new Map<string, number>()
  readonly config: IngestionConfig
  /** Books that were compared, refusals and snapshots by reason, and levels. */
  readonly bookCounts: Record<string, number> = {}
  readonly #random: Random
  readonly #digest = createHash('sha256')
  /** Until when a stream may be unsubscribed, as an `exchangeInfo` answer lacked its symbol. */
  #unnamedUntilMs = 0
  /** Symbols that traded in an answer to some process. */
  readonly #known = new Set<string>()
  /** The symbols of the first answer that each process got. */
  readonly #told = new WeakMap<LifeClock, ReadonlySet<string>>()
  #lives: Life[] = []
  #incarnation = 0
  #asleepUntilMs = 0
  #clockAheadMs = 0
  #quiet = false
  rollovers = 0
  backfilled = 0

  constructor(options: WorldOptions) {
    const random = new Random(options.seed, mulberry32)
    this.options = options
    this.#random = random
    this.config = configOf(options, random)
    this.exchange = new SimulatedExchange(this.clock, random.fork())
    const earlyOneIn = options.exchangeFaults === true ? 20 : 0
    // Not of the other draws: those of a seed are the same with and without order books.
    const bookRandom = hasBooks(options) ? new Random(hash32('books', options.seed), mulberry32) : null
    const draws = { random: random.fork(), bookRandom, earlyOneIn }
    this.market = new Market(options.symbols, this.clock, draws, this.exchange.emit)
    this.stored = new StoredEvents(TOPICS, this.market.hasBooks)
    this.exchange.onUpdateRead = (life, update) => {
      const incarnation = this.#lives.find(({ clock }) => clock === life)?.incarnation ?? 0
      this.processes.get(incarnation)?.read.push({ ...update, atMs: this.#nowMs })
    }
    this.exchange.mayBeQuiet = (stream) =>
      this.market.isQuiet(stream, QUIET_MS) || this.clock.monotonicMs() < this.#unnamedUntilMs
    const { restWeightPerMinute: weightPerMinute } = this.config
    const shown = { market: this.market, book: this.exchange.book, weightPerMinute }
    this.rest = new SimulatedRest(shown, this.clock, random.fork())
    const topics = { topics: Object.values(TOPICS), compacted: TOPICS.checkpoints }
    const kafka = { ...topics, copies: this.#copies(), defect: options.defect }
    this.kafka = new SimulatedKafka(kafka, this.clock, random.fork(), (appended) =>
      this.#onAppended(appended),
    )
  }

  /** Runs for the given time with faults, then without until everything has recovered. */
  async run(): Promise<void> {
    this.#live()
    this.market.start()
    this.#faultLater()
    await this.clock.advance(this.options.virtualMs)
    this.#quiet = true
    for (const part of [this.exchange, this.rest]) part.heal()
    this.market.setStatus([...this.market.statuses.keys()], 'TRADING')
    this.kafka.cluster.recover()
    await this.clock.advance(30 * MINUTE_MS)
    // Wait for the last events to arrive.
    this.market.stop()
    await this.clock.advance(15 * MINUTE_MS)
    this.kafka.audit.check()
    for (const life of [...this.#lives]) this.#bury(life)
  }

  /** Digest of all messages in Kafka except checkpoints, which contain the random name of their process. */
  get digest(): string {
    return this.#digest.copy().digest('hex')
  }

  /** True time, milliseconds since the Unix epoch. */
  get #nowMs(): number {
    return this.clock.wallMicros() / 1000
  }

  /** Nothing starts or ends while the machine sleeps. */
  get #isAsleep(): boolean {
    return this.clock.monotonicMs() < this.#asleepUntilMs
  }

  /** SIGKILL, and a start a while later. */
  kill(afterMs: number): void {
    if (this.#isAsleep) return
    for (const life of [...this.#lives]) this.#bury(life)
    this.#liveAfter(afterMs)
  }

  /** SIGTERM, and a start a while after the end. */
  restart(afterMs: number): void {
    const life = this.#lives.at(-1)
    if (this.#isAsleep || life === undefined || life.stopping) return
    this.#stop(life).then(() => this.#liveAfter(afterMs), this.#onDefect)
  }

  /** SIGSTOP, and SIGCONT a while later. */
  pause(forMs: number): void {
    for (const { clock } of this.#lives) clock.stopFor(forMs)
    this.kafka.audit.excuseUntil(this.clock.monotonicMs() + forMs)
  }

  /** The machine sleeps: the process is stopped, and monotonic time stands still. */
  suspend(forMs: number): void {
    if (this.#isAsleep) return
    this.#asleepUntilMs = this.clock.monotonicMs() + forMs
    for (const { clock } of this.#lives) clock.suspendFor(forMs)
    this.kafka.audit.excuseUntil(this.clock.monotonicMs() + forMs)
  }

  /** Makes the machine's wall clock wrong, and corrects it a while later. */
  setClock(aheadMs: number, forMs: number): void {
    const set = (ms: number) => {
      this.#clockAheadMs = ms
      this.#setWhenAwake()
    }
    set(Math.round(aheadMs))
    this.clock.schedule(forMs, () => set(0))
    // Brokers refuse times more than an hour ahead of theirs.
    this.kafka.audit.excuseUntil(this.clock.monotonicMs() + forMs)
  }

  /** A change during sleep would be indistinguishable from the sleep: specification, not covered. */
  #setWhenAwake(): void {
    const leftMs = Math.max(0, ...this.#lives.map(({ clock }) => clock.asleepForMs))
    if (leftMs > 0) this.clock.schedule(leftMs + TICK_MS, () => this.#setWhenAwake())
    else this.wall.set(this.#clockAheadMs)
  }

  /** Starts another process over the same symbols: the older one must detect it and stop. */
  takeOver(): void {
    const older = this.#lives.at(-1)
    if (this.#isAsleep || older === undefined || older.stopping) return
    const newer = this.#live()
    const check = () => {
      const both = [older, newer]
      if (!both.every(({ clock, stopping }) => clock.isAlive && !stopping)) return
      // A process that was stopped, or has not reached Kafka yet, has had no time for it.
      const isStarting = newer.ingestion.sources.waitingFor !== ''
      if (isStarting || both.some(({ clock }) => clock.runningForMs < MINUTE_MS))
        this.clock.schedule(MINUTE_MS, check)
      else this.complaints.push('C4: two instances run over the same symbols')
    }
    this.clock.schedule(10 * MINUTE_MS, check)
  }

  readonly #onDefect = (error: unknown): void => {
    this.complaints.push(`a defect: ${error instanceof Error ? error.stack : String(error)}`)
  }

  #faultLater(): void {
    this.clock.schedule(this.#random.interval(this.options.faultEveryMs), () => {
      if (this.#quiet) return
      this.market.storm(this.#random.whole(10, this.options.stormOccurrences), 60_000)
      // In the middle of the burst.
      this.clock.schedule(this.#random.between(0, 60_000), () => {
        if (this.#quiet) return
        const name = strike(this, this.#random)
        this.faults[name] = (this.faults[name] ?? 0) + 1
        this.#checkConservation()
      })
      this.#faultLater()
    })
  }

  #liveAfter(ms: number): void {
    this.clock.schedule(ms, () => {
      if (this.#isAsleep) this.#liveAfter(this.#asleepUntilMs - this.clock.monotonicMs())
      else if (this.#lives.length === 0) this.#live()
    })
  }

  #live(): Life {
    const clock = new LifeClock(this.clock, this.wall)
    const random = this.#random.fork()
    const incarnation = ++this.#incarnation
    const rest = this.rest.access(clock)
    const ports = {
      clock,
      random: random.next,
      exchange: {
        askExchange: () => this.#answer(clock, () => ({ named: 'simulated', timeUnit: null })),
        askRest: () => this.#answer(clock, () => ({ named: 'simulated', timeUnit: null })),
        symbols: () => this.#answer(clock, () => this.#symbols(clock)),
        serverTimeMs: () => this.#answer(clock, () => Math.floor(this.clock.wallMicros() / 1000)),
        fetchTrades: () => rest.fetchTrades,
        fetchBook: () => rest.fetchBook,
        openSocket: this.exchange.openSocket(clock),
      },
      kafka: this.kafka.access(clock, incarnation),
    }
    const ingestion = new Ingestion(this.config, ports, LOG)
    const overlapped = this.#lives.length > 0
    for (const other of this.#lives) other.overlapped = true
    const life = { clock, ingestion, incarnation, stopping: false, overlapped }
    this.#lives.push(life)
    this.processes.set(incarnation, { bornMs: this.#nowMs, read: [] })
    ingestion.ended.then((error) => this.#onEnded(life, error), this.#onDefect)
    ingestion.start()
    return life
  }

  async #answer<Result>(clock: LifeClock, answer: () => Result): Promise<Result> {
    await clock.wait(this.#random.between(10, 300))
    return answer()
  }

  /** Answers `exchangeInfo` to one process, and records the symbols new to it. */
  #symbols(clock: LifeClock): Map<string, string> {
    const answer = this.rest.symbols()
    if (answer.size < this.market.statuses.size) this.#unnamedUntilMs = this.clock.monotonicMs() + QUIET_MS
    const before = this.#told.get(clock)
    this.#told.set(clock, before ?? new Set(answer.keys()))
    for (const symbol of answer.keys()) {
      // An earlier process may have a checkpoint of it.
      const isKnown = this.#known.has(symbol)
      if (answer.get(symbol) === 'TRADING') this.#known.add(symbol)
      if (before === undefined || before.has(symbol) || isKnown || answer.get(symbol) !== 'TRADING') continue
      clock.schedule(MINUTE_MS, () => this.listed.add(symbol))
    }
    return answer
  }

  /** Checks why a process stopped: only another instance, lost messages or another unit may be the cause. */
  #onEnded(life: Life, error: unknown): void {
    if (!life.clock.isAlive) return
    const isReplaced = life.overlapped && String(error).includes('Another ingestion')
    // The next start reads the remaining messages of the topics.
    const hasLostTail = this.options.clusterFaults && String(error).includes('lost messages that Kafka had')
    const isOtherUnit = this.options.exchangeFaults && String(error).includes('although Tapeline requested')
    if (!isReplaced && !hasLostTail && !isOtherUnit) this.#onDefect(error)
    this.#stop(life).then(() => this.#liveAfter(1000), this.#onDefect)
  }

  /** Shuts down like the service: 8 s to deliver, then it gives up. */
  async #stop(life: Life): Promise<void> {
    life.stopping = true
    const deadline = new AbortController()
    life.clock.schedule(8000, () => deadline.abort(new Error('8 s have passed')))
    const late = new Promise<void>((resolve) => life.clock.schedule(9500, resolve))
    // Undelivered messages are reported as an error; a restart fetches them again.
    await Promise.race([life.ingestion.stop(deadline.signal).catch(() => {}), late])
    this.#bury(life)
  }

  #bury(life: Life): void {
    if (!life.clock.isAlive) return
    this.#checkConservation()
    const { rollovers, counters } = life.ingestion.status()
    this.rollovers += rollovers
    this.backfilled += counters.backfilled
    life.clock.die()
    this.exchange.abandon(life.clock)
    this.#lives = this.#lives.filter((one) => one !== life)
  }

  /** G5, at any instant. */
  #checkConservation(): void {
    for (const { ingestion } of this.#lives) this.complaints.push(...unconserved(ingestion.status()))
  }

  #onAppended(appended: Appended): void {
    const { topic, value } = appended
    if (topic === TOPICS.checkpoints || value === null) return
    const gap: unknown = topic === TOPICS.gaps ? JSON.parse(value.toString()) : null
    // An announcement contains the random name of its process.
    if (gap !== null && RECORDING.safeParse(gap).success) return
    this.#digest.update(value)
    if (gap !== null) this.#onGap(GAP.parse(gap), appended.incarnation)
    else this.stored.add(appended, this.#nowMs)
  }

  #onGap(gap: Gap, incarnation: number): void {
    const known = this.ledger.get(gap.gap_id)
    if (known !== undefined && known.revision >= gap.revision) return
    this.ledger.set(gap.gap_id, gap)
    this.enteredBy.set(gap.gap_id, incarnation)
  }

  #copies(): Copies {
    const { planted } = this.options
    if (planted === undefined) return () => 1
    return (topic) => {
      if (topic !== PLANTED[planted.kind] || this.#quiet || this.#random.next() * planted.oneIn >= 1) return 1
      return planted.kind === 'double' ? 2 : 0
    }
  }
}

function configOf(options: WorldOptions, random: Random): IngestionConfig {
  const { seed, symbols, exchangeFaults, clockLimits = CLOCK_LIMITS } = options
  const config = ingestionConfig(loadSettings({}, { cwd: '/nonexistent' }))
  return {
    ...config,
    eventTypes: hasBooks(options) ? [...config.eventTypes, 'depth'] : config.eventTypes,
    symbols: exchangeFaults === true ? ['*'] : Object.keys(symbols),
    connectionsPerStream: seed % 4 === 3 ? 2 : 1,
    // Restarts reset it, but a day must have rollovers nevertheless.
    connectionMaxAgeMs: random.between(0.4, 2) * HOUR_MS,
    ...{ wsUrl: 'wss://exchange', restUrl: 'https://exchange', timeUnit: 'millisecond' },
    // With the lower one, snapshots have 1,000 levels, fewer than the books.
    restWeightPerMinute: hasBooks(options) && seed % 2 === 1 ? 480 : 3000,
    topics: TOPICS,
    compression: 'none',
    lingerMs: 5,
    // Fills up within a burst when the brokers are down.
    queueMaxBytes: random.pick([60_000, 400_000, 64 << 20]),
    clockLimits,
  }
}

/** One seed in three. */
function hasBooks({ seed, depth = seed % 3 === 0 }: WorldOptions): boolean {
  return depth
}

function unconserved({ counters }: IngestionStatus): string[] {
  const { received, forwarded, duplicate, control, ignored, rejected, held } = counters
  const { backfilled, acknowledged, discarded, queued, inFlight } = counters
  const isConserved = {
    frames: received === forwarded + duplicate + control + ignored + rejected + held,
    messages: forwarded + backfilled === acknowledged + discarded + queued + inFlight,
  }
  return Object.entries(isConserved)
    .filter(([, isTrue]) => !isTrue)
    .map(([what]) => `G5: ${what} are not conserved: ${JSON.stringify(counters)}`)
}
