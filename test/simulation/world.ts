import { pino } from 'pino'
import type { FetchTrades } from '../../src/binance/trade-rest.ts'
import type { OutgoingMessage } from '../../src/ingestion/message-queue.ts'
import { Pipeline } from '../../src/ingestion/pipeline.ts'
import { Replay } from '../../src/ingestion/recovery.ts'
import { type EventType, streamName } from '../../src/market/event.ts'
import type { Gap } from '../../src/market/gap.ts'
import { VirtualClock } from '../support/virtual-clock.ts'
import { MortalClock } from './mortal-clock.ts'

const TOPICS = { trades: 't', bookTicker: 'b', gaps: 'g', checkpoints: 'c', deadLetters: 'd' }
const METADATA = new Map(Object.values(TOPICS).map((topic) => [topic, { id: topic, partitions: 1 }]))
const LOG = pino({ level: 'silent' })
const TYPES: readonly EventType[] = ['trade', 'aggTrade', 'bookTicker']

/** How often things happen, as a mean in virtual milliseconds; 0 for never. */
export interface WorldOptions {
  readonly seed: number
  readonly virtualMs: number
  /** Symbols and the mean interval of their trades. */
  readonly symbols: Readonly<Record<string, number>>
  readonly cutEveryMs: number
  readonly rolloverEveryMs: number
  readonly crashEveryMs: number
  readonly brokerOutageEveryMs: number
  readonly dropEveryMs: number
  readonly restFailureShare: number
  /** A defect to be found: what Kafka does to one message in so many. */
  readonly planted?: { readonly kind: 'lose' | 'double' | 'lose gap'; readonly oneIn: number }
}

export interface Truth {
  readonly symbol: string
  readonly type: EventType
  readonly id: number
  readonly timeMs: number
  /** Dropped on every connection that was open: the exchange's own loss. */
  dropped: boolean
}

export interface LogRecord {
  readonly key: Buffer | null
  readonly value: Buffer
  readonly incarnation: number
}

interface Leg {
  readonly id: number
  readonly lagMs: number
  readonly bornMs: number
  lastDeliveryMs: number
  open: boolean
  /** Drops the next event. */
  dropNext: boolean
}

/**
 * Ingestion's pipeline, unchanged, on a virtual clock, against an exchange, a REST interface and a Kafka in memory,
 * with faults drawn from one seed: cut connections, rollovers, lost frames, brokers that are away, crashes between any
 * two steps. The same seed gives the same run.
 */
export class World {
  readonly clock = new VirtualClock()
  readonly options: WorldOptions
  readonly truth: Truth[] = []
  readonly logs = new Map<string, LogRecord[]>(Object.values(TOPICS).map((topic) => [topic, []]))
  readonly faults: Record<string, number> = {}
  /** Of every incarnation, when it ended or at the end of the run. */
  readonly counters: Array<Pipeline['handler']['counters']> = []
  incarnation = 0
  #random: () => number
  #quiet = false
  #closed = false
  #pipeline: Pipeline | null = null
  #life: MortalClock | null = null
  #legs: Leg[] = []
  #legId = 0
  #queue: OutgoingMessage[] = []
  #queued = 0
  #acknowledged = 0
  #fences: Array<{ after: number; resolve: () => void }> = []
  #brokerAwayUntilMs = 0
  readonly #nextId = new Map<string, number>()

  constructor(options: WorldOptions) {
    this.options = options
    this.#random = mulberry32(options.seed)
  }

  /** Runs the given time with faults, and then as long as it takes to heal without. */
  async run(): Promise<void> {
    const { options } = this
    this.#start()
    for (const [symbol, everyMs] of Object.entries(options.symbols))
      this.#every(everyMs, () => this.#trade(symbol), true)
    this.#every(options.cutEveryMs, () => this.#cut())
    this.#every(options.rolloverEveryMs, () => this.#rollOver())
    this.#every(options.crashEveryMs, () => this.#crash())
    this.#every(options.brokerOutageEveryMs, () => this.#brokerAway())
    this.#every(options.dropEveryMs, () => this.#drop())
    await this.clock.advance(options.virtualMs)
    this.#quiet = true
    await this.clock.advance(20 * 60_000)
    // What happened last is to arrive, too.
    this.#closed = true
    await this.clock.advance(60_000)
    if (this.#pipeline !== null) this.counters.push(this.#pipeline.handler.counters)
  }

  #every(meanMs: number, act: () => void, always = false): void {
    if (meanMs === 0) return
    this.clock.schedule(-Math.log(1 - this.#random()) * meanMs, () => {
      if (always || !this.#quiet) act()
      this.#every(meanMs, act, always)
    })
  }

  #count(fault: string): void {
    this.faults[fault] = (this.faults[fault] ?? 0) + 1
  }

  get #wallMs(): number {
    return Math.floor(this.clock.wallMicros() / 1000)
  }

  /** A burst of one to a few trades, each with its aggTrade and a quote. */
  #trade(symbol: string): void {
    if (this.#closed) return
    const burst = this.#random() < 0.05 ? 20 : 1
    for (let i = 0; i < burst; i++) for (const type of TYPES) this.#happen(symbol, type)
  }

  #happen(symbol: string, type: EventType): void {
    const stream = streamName(symbol, type)
    const id =
      (this.#nextId.get(stream) ?? 1000) + (type === 'bookTicker' ? 1 + Math.floor(this.#random() * 3) : 1)
    this.#nextId.set(stream, id)
    const event = { symbol, type, id, timeMs: this.#wallMs, dropped: true }
    this.truth.push(event)
    const text = `{"stream":"${stream}","data":${payload(event)}}`
    for (const leg of this.#legs) {
      if (leg.dropNext) {
        leg.dropNext = false
        continue
      }
      event.dropped = false
      const atMs = Math.max(leg.lastDeliveryMs, this.clock.monotonicMs() + leg.lagMs)
      leg.lastDeliveryMs = atMs
      this.clock.schedule(atMs - this.clock.monotonicMs(), () => {
        if (leg.open) this.#pipeline?.handle(Buffer.from(text), leg.id, () => {})
      })
    }
    if (this.#legs.length === 0) event.dropped = false
  }

  #start(): void {
    this.incarnation++
    const life = new MortalClock(this.clock)
    const replay = new Replay(Object.keys(this.options.symbols))
    const log = (topic: string) => this.logs.get(topic) ?? []
    for (const { key, value } of log(TOPICS.checkpoints)) replay.checkpoint(key, value)
    for (const topic of [TOPICS.trades, TOPICS.bookTicker]) {
      for (const [offset, { key, value }] of log(topic).entries()) replay.event(topic, offset, key, value)
    }
    this.#queue = []
    this.#queued = 0
    this.#acknowledged = 0
    this.#fences = []
    this.#life = life
    this.#pipeline = new Pipeline(
      {
        topics: TOPICS,
        restWeightPerMinute: 6000,
        backfillMaxIds: 1_000_000,
        backoff: { initialMs: 1000, maxMs: 30_000 },
      },
      {
        clock: life,
        random: this.#random,
        instance: `i${this.incarnation}`,
        fetch: this.#rest(life),
        watch: { check: async () => {}, close: async () => {} },
        topics: METADATA,
        symbols: Object.keys(this.options.symbols),
        send: (message) => {
          if (!life.isAlive) return
          this.#queue.push(message)
          this.#queued++
        },
        acknowledged: () =>
          new Promise((resolve) => {
            if (this.#queued <= this.#acknowledged) resolve()
            else this.#fences.push({ after: this.#queued, resolve })
          }),
        whenRoom: async () => {},
        onFatal: (error) => {
          throw error
        },
        log: LOG,
      },
      {
        ...replay.memory(),
        offsets: [TOPICS.trades, TOPICS.bookTicker].map((topic) => ({
          topic,
          partition: 0,
          offset: log(topic).length,
        })),
      },
    )
    this.#pipeline.start()
    this.#deliver(life)
    this.#open()
  }

  /** The producer: one batch after another, appended and then acknowledged; a crash may come in between. */
  #deliver(life: MortalClock): void {
    const awayMs = Math.max(0, this.#brokerAwayUntilMs - this.clock.monotonicMs())
    life.schedule(awayMs + 5 + this.#random() * 40, () => {
      const batch = this.#queue.splice(0, 500)
      const nextOffsets = new Map<string, number>()
      for (const message of batch) nextOffsets.set(message.topic, this.#append(message))
      life.schedule(1 + this.#random() * 20, () => {
        this.#acknowledged += batch.length
        const offsets = [...nextOffsets].map(([topic, offset]) => ({ topic, partition: 0, offset }))
        this.#pipeline?.onAcknowledged(batch, offsets)
        while (this.#fences[0] !== undefined && this.#fences[0].after <= this.#acknowledged)
          this.#fences.shift()?.resolve()
        this.#deliver(life)
      })
    })
  }

  #append({ topic, key, value, mark }: OutgoingMessage): number {
    const log = this.logs.get(topic) ?? []
    const { planted } = this.options
    const struck = planted !== undefined && !this.#quiet && this.#random() * planted.oneIn < 1
    const isEvent = mark !== null && mark.type !== 'bookTicker'
    const lost =
      struck &&
      ((planted.kind === 'lose' && isEvent) || (planted.kind === 'lose gap' && topic === TOPICS.gaps))
    const copies = lost ? 0 : struck && planted.kind === 'double' && isEvent ? 2 : 1
    for (let i = 0; i < copies; i++) log.push({ key, value, incarnation: this.incarnation })
    return log.length
  }

  #open(): void {
    const nowMs = this.clock.monotonicMs()
    const leg = {
      id: this.#legId++,
      lagMs: 5 + this.#random() * 200,
      bornMs: nowMs,
      lastDeliveryMs: 0,
      open: true,
      dropNext: false,
    }
    this.#legs.push(leg)
    this.#pipeline?.connected(leg.id, this.#streams)
  }

  #close(leg: Leg): void {
    leg.open = false
    this.#legs = this.#legs.filter((one) => one !== leg)
    this.#pipeline?.disconnected(leg.id, this.#streams, 'reconnect')
  }

  get #streams(): string[] {
    return Object.keys(this.options.symbols).flatMap((symbol) =>
      TYPES.map((type) => streamName(symbol, type)),
    )
  }

  #cut(): void {
    if (this.#pipeline === null || this.#legs.length === 0) return
    this.#count('cut')
    for (const leg of [...this.#legs]) this.#close(leg)
    this.#life?.schedule(100 + this.#random() * 20_000, () => {
      if (this.#legs.length === 0) this.#open()
    })
  }

  #rollOver(): void {
    const [old] = this.#legs
    if (this.#pipeline === null || old === undefined || this.#legs.length > 1) return
    this.#count('rollover')
    this.#open()
    this.#life?.schedule(6000, () => {
      if (this.#legs.length > 1 && old.open) this.#close(old)
    })
  }

  #crash(): void {
    if (this.#pipeline === null) return
    this.#count('crash')
    this.counters.push(this.#pipeline.handler.counters)
    this.#life?.die()
    this.#pipeline = null
    for (const leg of this.#legs) leg.open = false
    this.#legs = []
    this.clock.schedule(500 + this.#random() * 60_000, () => this.#start())
  }

  #brokerAway(): void {
    this.#count('broker away')
    this.#brokerAwayUntilMs = this.clock.monotonicMs() + this.#random() * 30_000
  }

  #drop(): void {
    const leg = this.#legs[Math.floor(this.#random() * this.#legs.length)]
    if (leg === undefined) return
    this.#count('drop')
    leg.dropNext = true
  }

  #rest(life: MortalClock): FetchTrades {
    return ({ type, symbol, fromId, limit }) =>
      new Promise((resolve) => {
        life.schedule(50 + this.#random() * 500, () => {
          if (!this.#quiet && this.#random() < this.options.restFailureShare) {
            this.#count('REST failure')
            const kind = this.#random()
            if (kind < 0.3) resolve({ kind: 'wait', waitMs: 5000, status: 429 })
            else if (kind < 0.6) resolve({ kind: 'rows', rows: [], usedWeight: 0 })
            else resolve({ kind: 'failed', reason: 'HTTP 500' })
            return
          }
          const lagMs = this.#random() * 3000
          const all = this.truth.filter(
            (one) => one.symbol === symbol && one.type === type && one.timeMs <= this.#wallMs - lagMs,
          )
          const rows =
            fromId === null ? all.slice(-limit) : all.filter(({ id }) => id >= fromId).slice(0, limit)
          resolve({
            kind: 'rows',
            usedWeight: 0,
            rows: rows.map(({ id, timeMs }) => ({
              id,
              price: '1.5',
              quantity: '1',
              timeMs,
              isBuyerMaker: true,
              isBestMatch: true,
              trades: type === 'aggTrade' ? { from: id, to: id } : null,
            })),
          })
        })
      })
  }
}

/** The final state of every gap, as the table would have it: the highest revision. */
export function ledgerOf(world: World): Gap[] {
  const gaps = new Map<string, Gap>()
  for (const { value } of world.logs.get(TOPICS.gaps) ?? []) {
    const gap: Gap = JSON.parse(value.toString())
    if ((gaps.get(gap.gap_id)?.revision ?? 0) < gap.revision) gaps.set(gap.gap_id, gap)
  }
  return [...gaps.values()]
}

function payload({ symbol, type, id, timeMs }: Truth): string {
  if (type === 'bookTicker') return `{"u":${id},"s":"${symbol}","b":"1","B":"1","a":"2","A":"1"}`
  const own = type === 'trade' ? `"t":${id}` : `"a":${id},"f":${id},"l":${id}`
  return `{"e":"${type}","E":${timeMs},"s":"${symbol}",${own},"p":"1.5","q":"1","T":${timeMs},"m":true,"M":true}`
}

function mulberry32(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
