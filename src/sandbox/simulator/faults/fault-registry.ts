import type { Clock } from '../../../foundation/runtime/clock.ts'
import { hash32, Random } from '../market/random.ts'
import type { FaultKind, FaultSpec, SpecOf } from './fault-kinds.ts'

/** What ended a fault: its time, its count, or somebody who asked. */
type EndedBy = 'time' | 'count' | 'request'

/** A fault as it is listed. Times are UTC, to the millisecond. */
export interface FaultReport {
  readonly id: number
  readonly kind: FaultKind
  readonly state: 'waiting' | 'active' | 'ended'
  readonly startedAt: string | null
  readonly endedAt: string | null
  readonly endedBy: EndedBy | null
  /** Frames, connections, requests or answers that it has struck. */
  readonly struck: number
  /** What kept it from doing its work; null: nothing. */
  readonly problem: string | null
  readonly spec: FaultSpec
}

/** A fault and what has become of it so far. */
export interface Fault {
  readonly id: number
  readonly spec: FaultSpec
  readonly random: Random
  /** On the monotonic clock, in milliseconds. */
  readonly beginsAtMs: number
  endsAtMs: number
  startedAt: string | null
  endedAt: string | null
  endedBy: EndedBy | null
  struck: number
  problem: string | null
}

export type FaultOf<Kind extends FaultKind> = Fault & { readonly spec: SpecOf<Kind> }

/** Told when a fault takes hold and when it lets go, at once and in this order. */
export interface FaultListener {
  began(fault: Fault): void
  ended(fault: Fault): void
}

/** Faults that strike whatever they match. */
const ALWAYS = { count: undefined, probability: 1 }

/** Ended faults that are still listed. */
const KEPT_ENDED = 1_000

/**
 * Which faults there are, which of them hold now, and whom each strikes. It knows time and chance only from the
 * clock and the seed that it is given, and nothing of sockets: what a fault does is its listener's business.
 */
export class FaultRegistry {
  readonly #clock: Clock
  readonly #seed: number
  readonly #listener: FaultListener
  readonly #waiting = new Set<Fault>()
  readonly #active = new Set<Fault>()
  #ended: Fault[] = []
  #added = 0
  #cancelTimer: (() => void) | undefined

  constructor(options: { clock: Clock; seed: number; listener: FaultListener }) {
    this.#clock = options.clock
    this.#seed = options.seed
    this.#listener = options.listener
  }

  get isQuiet(): boolean {
    return this.#active.size === 0
  }

  /** The faults of a kind that hold now, the oldest first. */
  active<Kind extends FaultKind>(kind: Kind): ReadonlyArray<FaultOf<Kind>> {
    if (this.#active.size === 0) return []
    return [...this.#active].filter((fault): fault is FaultOf<Kind> => fault.spec.kind === kind)
  }

  add(spec: FaultSpec): Fault {
    const id = ++this.#added
    const seed = 'seed' in spec && spec.seed !== undefined ? spec.seed : hash32(this.#seed, id)
    const beginsAtMs = this.#clock.monotonicMs() + spec.afterMs
    const fault = {
      id,
      spec,
      random: new Random(seed),
      beginsAtMs,
      endsAtMs: beginsAtMs + durationMs(spec),
      startedAt: null,
      endedAt: null,
      endedBy: null,
      struck: 0,
      problem: null,
    }
    this.#waiting.add(fault)
    this.#advance()
    return fault
  }

  /**
   * Draws whether a fault strikes the next one that it matches, and counts it. A fault whose count is full has
   * ended.
   */
  strikes(fault: Fault): boolean {
    if (fault.endedAt !== null) return false
    const { spec } = fault
    const { count, probability } = 'probability' in spec ? spec : ALWAYS
    if (probability < 1 && fault.random.next() >= probability) return false
    fault.struck++
    if (fault.struck === count) this.#end(fault, 'count')
    return true
  }

  /** @returns the fault, ended now or before; undefined when there never was one of this id */
  end(id: number): Fault | undefined {
    const fault = [...this.#waiting, ...this.#active, ...this.#ended].find((each) => each.id === id)
    if (fault !== undefined) this.#end(fault, 'request')
    return fault
  }

  /** Ends all; the list of those that have ended stays. */
  endAll(): void {
    for (const fault of [...this.#waiting, ...this.#active]) this.#end(fault, 'request')
  }

  /** Every fault that is not yet over, and the latest of those that are, by id. */
  list(): FaultReport[] {
    return [...this.#ended, ...this.#active, ...this.#waiting].sort((a, b) => a.id - b.id).map(reportOf)
  }

  #advance(): void {
    const nowMs = this.#clock.monotonicMs()
    for (const fault of [...this.#waiting]) {
      if (fault.beginsAtMs > nowMs) continue
      this.#waiting.delete(fault)
      this.#active.add(fault)
      fault.startedAt = this.#wallTime()
      this.#listener.began(fault)
    }
    for (const fault of [...this.#active]) {
      if (fault.endsAtMs <= nowMs) this.#end(fault, 'time')
    }
    this.#schedule()
  }

  #end(fault: Fault, endedBy: EndedBy): void {
    if (fault.endedAt !== null) return
    const held = this.#active.delete(fault)
    this.#waiting.delete(fault)
    fault.endedAt = this.#wallTime()
    fault.endedBy = endedBy
    this.#ended.push(fault)
    if (this.#ended.length > 2 * KEPT_ENDED) this.#ended = this.#ended.slice(-KEPT_ENDED)
    if (held) this.#listener.ended(fault)
    this.#schedule()
  }

  /** One timer for whatever begins or ends next. */
  #schedule(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    const nextMs = Math.min(
      ...[...this.#waiting].map(({ beginsAtMs }) => beginsAtMs),
      ...[...this.#active].map(({ endsAtMs }) => endsAtMs),
    )
    if (!Number.isFinite(nextMs)) return
    const delayMs = Math.max(0, Math.ceil(nextMs - this.#clock.monotonicMs()))
    this.#cancelTimer = this.#clock.schedule(delayMs, () => this.#advance())
  }

  #wallTime(): string {
    return new Date(Math.floor(this.#clock.wallMicros() / 1_000)).toISOString()
  }
}

/** How long a fault holds by itself: some are over as soon as they are done. */
function durationMs(spec: FaultSpec): number {
  switch (spec.kind) {
    case 'cut':
    case 'restartIds':
    case 'list':
      return 0
    case 'serverShutdown':
      return spec.graceMs
    default:
      return spec.forMs ?? Number.POSITIVE_INFINITY
  }
}

export function reportOf(fault: Fault): FaultReport {
  const { id, spec, startedAt, endedAt, endedBy, struck, problem } = fault
  const state = endedAt !== null ? 'ended' : startedAt !== null ? 'active' : 'waiting'
  return { id, kind: spec.kind, state, startedAt, endedAt, endedBy, struck, problem, spec }
}
