import { streamName } from '../src/foundation/market/event.ts'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import type { FaultRequest } from '../src/sandbox/simulator/faults/fault-kinds.ts'
import { until } from '../test/support/wait-for.ts'
import { clockFaultName, strikeClock, type WrongClock } from './clock-faults.ts'
import { strikeCluster } from './cluster-faults.ts'
import type { ExchangeAct } from './exchange-deck.ts'
import type { ClockFault, ClusterFault, DiskFault, ExchangeFault, Incident, ProcessFault } from './faults.ts'
import type { Observer } from './observer.ts'
import type { PartName } from './options.ts'
import type { Disturbance } from './quotes.ts'
import type { Concerned, ServiceName } from './recoveries.ts'
import type { Schedule } from './schedule.ts'
import type { Stage } from './stage.ts'
import type { DeniedIds } from './truth.ts'

/** The services affected by a fault of each part. */
const CONCERNED: Readonly<Record<PartName, readonly Concerned[]>> = {
  ingestion: ['ingestion'],
  consumer: ['consumer'],
  broker: ['ingestion', 'consumer', 'archive'],
  database: ['consumer'],
  archive: ['archive'],
}

/** Faults that lose or delay quotes on connections that stay open. */
const DISTURBING: ReadonlySet<string> = new Set(['stall', 'drop', 'delay', 'freeze'])
/** Delayed frames arrive within this time after the end of a fault. */
const AFTERMATH_MS = 3000
/** Every stream gets a new id long before this many have passed. */
const FAR_AHEAD = 100_000
/** Every fault of the exchange ends earlier; this limit catches one that does not. */
const LONGEST_FAULT_MS = 90_000

/** Carries out a schedule and records the faults. */
export class Saboteur {
  readonly counts = new Map<string, number>()
  /** Faults that struck nothing: no connection, no request, no leader to elect. */
  readonly inVain = new Map<string, number>()
  /** In the order of their end. */
  readonly incidents: Incident[] = []
  readonly disturbances: Disturbance[] = []
  readonly denied: DeniedIds[] = []
  /** Periods in which ingestion's clock was wrong. */
  readonly wrongClocks: WrongClock[] = []
  /** End of the latest fault of each part in wall-clock milliseconds; Infinity during a fault. */
  readonly lastTroubleMs = new Map<PartName | 'disk', number>()
  readonly #stage: Stage
  readonly #observer: Observer
  /** Serialises the clock faults of each service. */
  readonly #clockTurns: Record<ServiceName, Promise<unknown>> = {
    ingestion: Promise.resolve(),
    consumer: Promise.resolve(),
  }
  /** Clock offsets of this run: times in the ledger may be off by these. */
  #steps: readonly number[] = []

  constructor(stage: Stage, observer: Observer) {
    this.#stage = stage
    this.#observer = observer
  }

  get faults(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0)
  }

  /** Resolves when every fault has been carried out and is over; rejects if one failed. */
  async carryOut(schedule: Schedule, forMs: number, signal: AbortSignal): Promise<void> {
    const { processFaults, clusterFaults, clockFaults, exchangeFaults, diskFaults } = schedule
    const startMs = performance.now()
    this.#stage.cluster.untilMs = startMs + forMs
    this.#steps = [...new Set(clockFaults.map(({ stepMs }) => stepMs))]
    const moments = [
      ...processFaults.map((fault) => ({ atMs: fault.atMs, act: () => this.#onProcess(fault, signal) })),
      ...clusterFaults.map((fault) => ({
        atMs: fault.atMs,
        act: () => this.#onCluster(fault, startMs, signal),
      })),
      ...clockFaults.map((fault) => ({ atMs: fault.atMs, act: () => this.#onClock(fault, signal) })),
      ...diskFaults.map((fault) => ({ atMs: fault.atMs, act: () => this.#onDisk(fault, signal) })),
      ...exchangeFaults.map((fault) => ({ atMs: fault.atMs, act: () => this.#onExchange(fault) })),
    ].sort((a, b) => a.atMs - b.atMs)
    const failed = Promise.withResolvers<never>()
    const acts: Array<Promise<void>> = []
    const all = async () => {
      for (const { atMs, act } of moments) {
        await sleep(Math.max(0, atMs - (performance.now() - startMs)), signal)
        const acting = act()
        acting.catch(failed.reject)
        acts.push(acting)
      }
      await Promise.all(acts)
    }
    await Promise.race([all(), failed.promise])
  }

  async #onProcess(fault: ProcessFault, signal: AbortSignal): Promise<void> {
    const { part: name, kind, member } = fault
    const { cluster, parts } = this.#stage
    const members = parts[name]
    const part = members[member % members.length]
    if (part === undefined) throw new Error(`No process of part ${name}`)
    let over: ((overMs: number) => void) | undefined
    const strike = () =>
      part.strike(fault, signal, (atMs) => {
        over = this.#begin(`${name} ${kind}`, name, atMs)
      })
    const isCluster = name === 'broker' && members.length > 1
    const struck = isCluster ? await cluster.inTurn(strike, signal) : await strike()
    const { fromMs, backMs, toMs } = struck
    over?.(toMs)
    this.#record(`${part.label} ${kind}`, fromMs, toMs)
    this.lastTroubleMs.set(name, toMs)
    if (name === 'ingestion') this.#ingestionStood(kind === 'pause', fromMs, backMs, toMs)
  }

  async #onCluster(fault: ClusterFault, startMs: number, signal: AbortSignal): Promise<void> {
    const { kind, untilMs } = fault
    do {
      let over: ((overMs: number) => void) | undefined
      const struck = await strikeCluster(this.#stage.cluster, fault, signal, (atMs) => {
        over = this.#begin(kind, 'broker', atMs)
      })
      if (struck === null) return
      over?.(struck.toMs)
      for (const { name, fromMs, toMs } of struck.incidents) this.#record(name, fromMs, toMs)
      if (struck.inVain) count(this.inVain, kind)
      this.lastTroubleMs.set('broker', struck.toMs)
    } while (performance.now() - startMs < untilMs)
  }

  async #onDisk({ holdMs }: DiskFault, signal: AbortSignal): Promise<void> {
    const { archiveDisk } = this.#stage
    if (archiveDisk === null) return
    const fromMs = Date.now()
    const over = this.#begin('archive disk full', 'disk', fromMs, ['archive'])
    archiveDisk.fill()
    try {
      await sleep(holdMs, signal)
    } finally {
      archiveDisk.empty()
    }
    const toMs = Date.now()
    over(toMs)
    this.#record('archive disk full', fromMs, toMs)
    this.lastTroubleMs.set('disk', toMs)
  }

  async #onClock(fault: ClockFault, signal: AbortSignal): Promise<void> {
    const { part, kind } = fault
    const name = clockFaultName(fault)
    const striking = this.#clockTurns[part].then(async () => {
      let over: ((overMs: number) => void) | undefined
      const struck = await strikeClock(this.#stage[part], this.#stage.probes[part], fault, signal, (atMs) => {
        over = this.#begin(name, part, atMs)
      })
      const { fromMs, toMs, still } = struck
      over?.(toMs)
      this.#record(name, still?.fromMs ?? fromMs, toMs)
      this.lastTroubleMs.set(part, toMs)
      if (part === 'consumer') return
      this.wrongClocks.push(struck)
      this.disturbances.push({ symbol: null, fromMs: still?.fromMs ?? fromMs, toMs: toMs + AFTERMATH_MS })
      if (still !== null) this.#ingestionStood(kind === 'suspend', still.fromMs, still.toMs, fromMs)
    })
    this.#clockTurns[part] = striking.catch(() => undefined) // The caller gets the error.
    await striking
  }

  #begin(
    name: string,
    part: PartName | 'disk',
    atMs: number,
    concerned = part === 'disk' ? [] : CONCERNED[part],
  ): (overMs: number) => void {
    count(this.counts, name)
    this.lastTroubleMs.set(part, Number.POSITIVE_INFINITY)
    const there = concerned.filter((one) => one !== 'archive' || this.#stage.archiveUrls.length > 0)
    return this.#observer.recoveries.begin(name, there, atMs)
  }

  /** @param isStill whether it was paused; otherwise it was down */
  #ingestionStood(isStill: boolean, fromMs: number, backMs: number, toMs: number): void {
    const { outages } = this.#observer
    if (isStill) {
      outages.processPaused(fromMs, backMs)
      this.disturbances.push({ symbol: null, fromMs, toMs: toMs + AFTERMATH_MS })
    } else outages.processDown(fromMs, backMs)
  }

  async #onExchange({ name, act }: ExchangeFault): Promise<void> {
    const requests = act.type === 'add' ? act.requests : this.#denial(act)
    if (requests.length === 0) return
    const fromMs = Date.now()
    count(this.counts, name)
    const over = this.#observer.recoveries.begin(name, ['ingestion'], fromMs)
    const faults = requests.map((request) => this.#stage.exchange.faults.add(request))
    await until(
      `the end of ${name}`,
      () => faults.every((fault) => fault.report().state === 'ended'),
      LONGEST_FAULT_MS,
    )
    const toMs = Date.now()
    over(toMs)
    this.#record(name, fromMs, toMs)
    const [first] = faults
    // The exchange cannot see connections refused by a closed port.
    if (first?.report().struck === 0 && name !== 'unreachable') count(this.inVain, name)
    for (const request of requests) {
      if (!DISTURBING.has(request.kind)) continue
      const symbol = 'stream' in request ? symbolOf(request.stream) : null
      this.disturbances.push({ symbol, fromMs, toMs: toMs + AFTERMATH_MS })
      if (request.kind === 'stall' && request.stream?.endsWith('@bookTicker') !== false)
        this.#observer.outages.streamStalled(symbol, fromMs, toMs)
    }
  }

  #record(name: string, fromMs: number, toMs: number): void {
    this.incidents.push({ name, from: new Date(fromMs).toISOString(), to: new Date(toMs).toISOString() })
  }

  /** Drops future ids from the stream, and denies them over REST for a while. */
  #denial(act: Extract<ExchangeAct, { type: 'absent' }>): FaultRequest[] {
    const { symbol, ids, count, forMs, how } = act
    const stream = streamName(symbol, ids)
    const seen = this.#observer.ingestion?.status?.streams[stream]?.lastId
    // Ingestion requests no ids before it has received any.
    if (seen == null) return []
    const { history } = this.#stage.exchange
    const from = seen + Math.max(1, history.events(ids, symbol, seen, seen + FAR_AHEAD).length)
    const to = from + count - 1
    const nowMs = Date.now()
    for (const stepMs of [0, ...this.#steps]) {
      this.denied.push({
        ...{ symbol, ids, from: how === 'restHole' ? from : 0, to },
        ...{ fromMs: nowMs + stepMs, toMs: nowMs + forMs + stepMs },
      })
    }
    return [
      how === 'restHole'
        ? { kind: how, symbol, ids, fromId: from, toId: to, forMs }
        : { kind: how, symbol, ids, oldestId: to + 1, forMs },
      { kind: 'drop', stream, count, forMs },
    ]
  }
}

function count(counts: Map<string, number>, kind: string): void {
  counts.set(kind, (counts.get(kind) ?? 0) + 1)
}

function symbolOf(stream: string | undefined): string | null {
  const symbol = stream?.split('@')[0]
  return symbol === undefined || symbol.includes('*') ? null : symbol.toUpperCase()
}
