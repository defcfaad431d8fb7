import { type Clock, wallMs } from '../../../foundation/runtime/clock.ts'
import { hash32, Random } from '../market/random.ts'
import type { FaultKind, FaultSpec, SpecOf } from './fault-kinds.ts'

export interface Fault {
  readonly id: number
  readonly spec: FaultSpec
  readonly random: Random
  /** On the monotonic clock, like `endsAtMs`. */
  readonly beginsAtMs: number
  readonly endsAtMs: number
  /** UTC, with milliseconds, like `endedAt`. */
  startedAt: string | null
  endedAt: string | null
  endedBy: 'time' | 'count' | 'request' | null
  /** Number of frames, connections, requests or answers that it has affected. */
  struck: number
  /** Why it could not act; null if it could. */
  problem: string | null
}

export type FaultOf<Kind extends FaultKind> = Fault & { readonly spec: SpecOf<Kind> }

/** Called synchronously when a fault begins and when it ends, in this order. */
export interface FaultListener {
  began(fault: Fault): void
  ended(fault: Fault): void
}

/** For faults that act on every match. */
const ALWAYS = { count: undefined, probability: 1 }

/** Number of ended faults that are still listed. */
const KEPT_ENDED = 1_000

/** Holds the faults, and decides which act on a match. The listener implements the effect. */
export class FaultRegistry {
  readonly #options: { readonly clock: Clock; readonly seed: number; readonly listener: FaultListener }
  readonly #waiting = new Set<Fault>()
  readonly #active = new Set<Fault>()
  #ended: Fault[] = []
  #added = 0
  #cancelTimer: (() => void) | undefined

  constructor(options: { clock: Clock; seed: number; listener: FaultListener }) {
    this.#options = options
  }

  get isQuiet(): boolean {
    return this.#active.size === 0
  }

  /** Active faults of a kind, oldest first. */
  active<Kind extends FaultKind>(kind: Kind): ReadonlyArray<FaultOf<Kind>> {
    return [...this.#active].filter((fault): fault is FaultOf<Kind> => fault.spec.kind === kind)
  }

  add(spec: FaultSpec): Fault {
    const id = ++this.#added
    const seed = 'seed' in spec && spec.seed !== undefined ? spec.seed : hash32(this.#options.seed, id)
    const beginsAtMs = this.#options.clock.monotonicMs() + spec.afterMs
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

  /** Decides whether a fault acts on this match, and counts it. At its count it ends. */
  strikes(fault: Fault): boolean {
    if (fault.endedAt !== null) return false
    const { spec } = fault
    const { count, probability } = 'probability' in spec ? spec : ALWAYS
    if (probability < 1 && fault.random.next() >= probability) return false
    fault.struck++
    if (fault.struck === count) this.#end(fault, 'count')
    return true
  }

  /** Ends the fault with this id, if it has not ended. */
  end(id: number): void {
    for (const fault of [...this.#waiting, ...this.#active]) if (fault.id === id) this.#end(fault, 'request')
  }

  endAll(): void {
    for (const fault of [...this.#waiting, ...this.#active]) this.#end(fault, 'request')
  }

  /** Waiting and active faults, and the latest that have ended, by id. */
  list(): FaultReport[] {
    return [...this.#ended, ...this.#active, ...this.#waiting].sort((a, b) => a.id - b.id).map(reportOf)
  }

  #advance(): void {
    const nowMs = this.#options.clock.monotonicMs()
    for (const fault of [...this.#waiting]) {
      if (fault.beginsAtMs > nowMs) continue
      this.#waiting.delete(fault)
      this.#active.add(fault)
      fault.startedAt = this.#wallTime()
      this.#options.listener.began(fault)
    }
    for (const fault of [...this.#active]) {
      if (fault.endsAtMs <= nowMs) this.#end(fault, 'time')
    }
    this.#schedule()
  }

  #end(fault: Fault, endedBy: NonNullable<Fault['endedBy']>): void {
    if (fault.endedAt !== null) return
    const held = this.#active.delete(fault)
    this.#waiting.delete(fault)
    fault.endedAt = this.#wallTime()
    fault.endedBy = endedBy
    this.#ended.push(fault)
    if (this.#ended.length > 2 * KEPT_ENDED) this.#ended = this.#ended.slice(-KEPT_ENDED)
    if (held) this.#options.listener.ended(fault)
    this.#schedule()
  }

  /** Keeps a single timer, for the next begin or end. */
  #schedule(): void {
    this.#cancelTimer?.()
    this.#cancelTimer = undefined
    const nextMs = Math.min(
      ...[...this.#waiting].map(({ beginsAtMs }) => beginsAtMs),
      ...[...this.#active].map(({ endsAtMs }) => endsAtMs),
    )
    if (!Number.isFinite(nextMs)) return
    const delayMs = Math.max(0, Math.ceil(nextMs - this.#options.clock.monotonicMs()))
    this.#cancelTimer = this.#options.clock.schedule(delayMs, () => this.#advance())
  }

  #wallTime(): string {
    return new Date(wallMs(this.#options.clock)).toISOString()
  }
}

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

export type FaultReport = ReturnType<typeof reportOf>

export function reportOf(fault: Fault) {
  const { id, spec, startedAt, endedAt, endedBy, struck, problem } = fault
  const begun = startedAt === null ? 'waiting' : 'active'
  const state: 'waiting' | 'active' | 'ended' = endedAt === null ? begun : 'ended'
  return { id, kind: spec.kind, state, startedAt, endedAt, endedBy, struck, problem, spec }
}
