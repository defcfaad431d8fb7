import { streamName } from '../src/foundation/market/event.ts'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import type { FaultRequest } from '../src/sandbox/simulator/faults/fault-kinds.ts'
import { waitFor } from '../test/support/wait-for.ts'
import type { ExchangeAct } from './exchange-deck.ts'
import type { Observer } from './observer.ts'
import type { PartName } from './options.ts'
import type { Disturbance } from './quotes.ts'
import type { ServiceName } from './recoveries.ts'
import type { ExchangeFault, ProcessFault, Schedule } from './schedule.ts'
import type { Stage } from './stage.ts'
import type { DeniedIds } from './truth.ts'

/** Whom the fault of a part concerns. */
const CONCERNED: Readonly<Record<PartName, readonly ServiceName[]>> = {
  ingestion: ['ingestion'],
  consumer: ['consumer'],
  broker: ['ingestion', 'consumer'],
  database: ['consumer'],
}

/** Faults that lose quotes, or make them late, on connections that stay open. */
const DISTURBING: ReadonlySet<string> = new Set(['stall', 'drop', 'delay', 'freeze'])
/** What was held back comes within this time after a fault is over. */
const AFTERMATH_MS = 3000
/** A new id of any sequence comes long before so many have passed. */
const FAR_AHEAD = 100_000
/** Every fault of the exchange ends by its time; this is for the one that does not. */
const LONGEST_FAULT_MS = 90_000

/** One fault as it was carried out. Times as people read them, UTC. */
export interface Incident {
  readonly name: string
  readonly from: string
  /** When it was over, or the part ran again. */
  readonly to: string
}

/** Carries out a schedule, and keeps account of what was done. */
export class Saboteur {
  readonly counts = new Map<string, number>()
  /** Of these, faults of the exchange that met nothing to strike: no connection, no request. */
  readonly inVain = new Map<string, number>()
  /** In the order in which they ended. */
  readonly incidents: Incident[] = []
  readonly disturbances: Disturbance[] = []
  readonly denied: DeniedIds[] = []
  /** Since when each part was last not as it should be: Infinity while it is not; wall clock, milliseconds. */
  readonly lastTroubleMs = new Map<PartName, number>()
  readonly #stage: Stage
  readonly #observer: Observer

  constructor(stage: Stage, observer: Observer) {
    this.#stage = stage
    this.#observer = observer
  }

  get faults(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0)
  }

  /** Resolves when every fault has been carried out and is over; rejects when one could not be. */
  async carryOut({ processFaults, exchangeFaults }: Schedule, signal: AbortSignal): Promise<void> {
    const startMs = performance.now()
    const moments = [
      ...processFaults.map((fault) => ({ atMs: fault.atMs, act: () => this.#onProcess(fault, signal) })),
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
    const { part, kind } = fault
    const { outages, recoveries } = this.#observer
    let over: ((overMs: number) => void) | undefined
    const { fromMs, backMs, toMs } = await this.#stage.parts[part].strike(fault, signal, (atMs) => {
      count(this.counts, `${part} ${kind}`)
      this.lastTroubleMs.set(part, Number.POSITIVE_INFINITY)
      over = recoveries.begin(`${part} ${kind}`, CONCERNED[part], atMs)
    })
    over?.(toMs)
    this.#record(`${part} ${kind}`, fromMs, toMs)
    this.lastTroubleMs.set(part, toMs)
    if (part !== 'ingestion') return
    if (kind === 'pause') {
      outages.processPaused(fromMs, backMs)
      this.disturbances.push({ symbol: null, fromMs, toMs: toMs + AFTERMATH_MS })
    } else outages.processDown(fromMs, backMs)
  }

  async #onExchange({ name, act }: ExchangeFault): Promise<void> {
    const requests = act.type === 'add' ? act.requests : this.#denial(act)
    if (requests.length === 0) return
    const fromMs = Date.now()
    count(this.counts, name)
    if (name === 'restError 451') this.#denyAll(fromMs)
    const over = this.#observer.recoveries.begin(name, ['ingestion'], fromMs)
    const faults = requests.map((request) => this.#stage.exchange.faults.add(request))
    await waitFor(() => faults.every((fault) => fault.report().state === 'ended'), {
      timeoutMs: LONGEST_FAULT_MS,
      what: `the end of ${name}`,
    })
    const toMs = Date.now()
    over(toMs)
    this.#record(name, fromMs, toMs)
    const [first] = faults
    // Whom a closed port has turned away, the system knows alone.
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

  /** After a refusal of the region ingestion asks no more: whatever it gives up from then on was denied. */
  #denyAll(fromMs: number): void {
    for (const symbol of this.#stage.exchange.history.symbols) {
      for (const ids of ['trade', 'aggTrade'] as const)
        this.denied.push({
          symbol,
          ids,
          from: 0,
          to: Number.MAX_SAFE_INTEGER,
          fromMs,
          toMs: Number.POSITIVE_INFINITY,
        })
    }
  }

  /** Loses ids that are about to come, and lets REST deny them for a while. */
  #denial(act: Extract<ExchangeAct, { type: 'absent' }>): FaultRequest[] {
    const { symbol, ids, count, forMs, how } = act
    const stream = streamName(symbol, ids)
    const seen = this.#observer.ingestion?.status?.streams[stream]?.lastId
    // Before ingestion has seen anything nobody asks for ids.
    if (seen == null) return []
    const { history } = this.#stage.exchange
    const newest =
      ids === 'trade'
        ? history.trades(symbol, seen, seen + FAR_AHEAD).at(-1)?.id
        : history.aggTrades(symbol, seen, seen + FAR_AHEAD).at(-1)?.a
    const from = (newest ?? seen) + 1
    const to = from + count - 1
    const nowMs = Date.now()
    this.denied.push({
      symbol,
      ids,
      from: how === 'restHole' ? from : 0,
      to,
      fromMs: nowMs,
      toMs: nowMs + forMs,
    })
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
