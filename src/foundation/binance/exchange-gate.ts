import { AttemptLimit, sleep } from '../runtime/backoff.ts'
import type { Clock } from '../runtime/clock.ts'
import { ExchangeRefusal, type Refusal, type RefusalStatus, refusalWaitMs, ruleOf } from './refusal.ts'

/** The two interfaces of the exchange, whose limits are separate. */
export type ExchangeSide = 'rest' | 'handshakes'

/** Half of the handshakes that the exchange allows an address. */
const MAX_HANDSHAKES = 150
const HANDSHAKES_WINDOW_MS = 5 * 60_000

/** After a stop, one attempt probes whether a side serves again. Others wait for it, at most this long. */
const PROBE_MS = 10_000

/** Interval at which waiting attempts check the probe. */
const LOOK_MS = 1000

const NAMES: Readonly<Record<ExchangeSide, string>> = { rest: 'REST', handshakes: 'WebSocket handshakes' }

/** Receives each change once, like a log. */
export type GateReport = (
  level: 'info' | 'warn',
  details: {
    readonly side: ExchangeSide
    readonly status?: number
    readonly retryAt?: string
    readonly fix?: string
  },
  text: string,
) => void

interface Stop {
  readonly refusal: Refusal
  /** Consecutive refusals; those of simultaneous requests count once. */
  readonly times: number
  readonly untilMs: number
  readonly probeUntilMs: number
  /** Whether this side was refused, rather than stopped with the other one. */
  readonly isOwn: boolean
}

/**
 * Tracks which side of the exchange refuses this process and until when, since the exchange counts by
 * address. Reports each change once. Other processes with the address, such as shards, are unknown.
 */
export class ExchangeGate {
  readonly #clock: Clock
  readonly #random: () => number
  readonly #report: GateReport
  readonly #handshakes = new AttemptLimit(MAX_HANDSHAKES, HANDSHAKES_WINDOW_MS)
  readonly #stops: Record<ExchangeSide, Stop | null> = { rest: null, handshakes: null }
  /** Refused handshakes since the start, by the statuses of the table, `5xx` and `other`. */
  readonly handshakesRefused: Record<string, number> = {}

  /** @param random a number in [0, 1) */
  constructor(clock: Clock, random: () => number, report: GateReport) {
    this.#clock = clock
    this.#random = random
    this.#report = report
  }

  /** Returns how long a side must not be used, in milliseconds. */
  leftMs(side: ExchangeSide): number {
    return Math.max(0, (this.#stops[side]?.untilMs ?? 0) - this.#clock.monotonicMs())
  }

  /** Waits until a side may be tried, and handshakes for their rate limit. After a stop one goes first. */
  async wait(side: ExchangeSide, signal: AbortSignal): Promise<void> {
    await this.#untilServed(side, signal)
    if (side !== 'handshakes') return
    await this.#handshakes.wait(this.#clock, signal)
    // Another handshake may have been refused meanwhile.
    if (this.leftMs(side) > 0) await this.#untilServed(side, signal)
  }

  async #untilServed(side: ExchangeSide, signal: AbortSignal): Promise<void> {
    for (let stop = this.#stops[side]; stop !== null; stop = this.#stops[side]) {
      const nowMs = this.#clock.monotonicMs()
      const leftMs = Math.max(stop.untilMs, stop.probeUntilMs) - nowMs
      if (leftMs <= 0) {
        this.#stops[side] = { ...stop, probeUntilMs: nowMs + PROBE_MS }
        return
      }
      await sleep(Math.max(1, Math.min(leftMs, LOOK_MS)), signal, this.#clock)
    }
  }

  /** Makes an attempt and notes its result. @throws ExchangeRefusal without one while the side is refused */
  async attempt<Result>(side: ExchangeSide, make: () => Promise<Result>): Promise<Result> {
    const stop = this.#stops[side]
    if (stop !== null && this.leftMs(side) > 0)
      throw new ExchangeRefusal(`${NAMES[side]} not tried until ${this.#retryAt(stop)}`, stop.refusal)
    try {
      const result = await make()
      this.served(side)
      return result
    } catch (error) {
      this.failed(side, error)
      throw error
    }
  }

  /** Notes a failed attempt. @returns true if it was a refusal, which has been reported */
  failed(side: ExchangeSide, error: unknown): boolean {
    if (!(error instanceof ExchangeRefusal)) return false
    this.refused(side, error.refusal)
    return true
  }

  /** Notes a refusal, and stops the sides that its rule names. */
  refused(side: ExchangeSide, refusal: Refusal): void {
    if (side === 'handshakes') {
      const status = statusLabel(refusal.status)
      this.handshakesRefused[status] = (this.handshakesRefused[status] ?? 0) + 1
    }
    const { stops } = ruleOf(refusal)
    // A failed REST request has a separate wait; a refused handshake concerns all handshakes.
    if (stops === 'request' && refusal.retryAfterMs === null && side === 'rest') return
    this.#stop(side, refusal, true)
    if (stops === 'both') this.#stop(side === 'rest' ? 'handshakes' : 'rest', refusal, false)
  }

  /** Notes a success, unless the side has stopped since the request was sent. */
  served(side: ExchangeSide): void {
    const stop = this.#stops[side]
    if (stop === null || this.leftMs(side) > 0) return
    this.#stops[side] = null
    if (!stop.isOwn) return
    this.#report('info', { side }, `The exchange serves ${NAMES[side]} again`)
  }

  status(): Readonly<Record<ExchangeSide, RefusalStatus | null>> {
    return { rest: this.#statusOf('rest'), handshakes: this.#statusOf('handshakes') }
  }

  /** Summarises the refusals in one line; empty without any. */
  get summary(): string {
    return (['handshakes', 'rest'] as const)
      .flatMap((side) => {
        const status = this.#statusOf(side)
        if (status === null) return []
        return [`the exchange refuses ${NAMES[side]} (${status.reason}), next attempt ${status.retryAt}`]
      })
      .join('; ')
  }

  #statusOf(side: ExchangeSide): RefusalStatus | null {
    const stop = this.#stops[side]
    if (stop === null) return null
    // A refused connection retries until it is served; other stops may have no further request.
    const isPast = this.#clock.monotonicMs() > stop.untilMs + PROBE_MS
    if (isPast && !(side === 'handshakes' && stop.isOwn)) return null
    const { status, reason } = stop.refusal
    return { status, reason, retryAt: this.#retryAt(stop) }
  }

  #stop(side: ExchangeSide, refusal: Refusal, isOwn: boolean): void {
    const before = this.#stops[side]
    const nowMs = this.#clock.monotonicMs()
    const isSameStop = before !== null && before.untilMs > nowMs
    // The text may change each time: for a ban it includes the end.
    const isRepeated =
      before !== null && before.refusal.status === refusal.status && before.refusal.code === refusal.code
    const times = isRepeated ? before.times + (isSameStop ? 0 : 1) : 1
    const untilMs = Math.max(before?.untilMs ?? 0, nowMs + refusalWaitMs(refusal, times, this.#random()))
    const stop = { refusal, times, untilMs, probeUntilMs: 0, isOwn: isOwn || before?.isOwn === true }
    this.#stops[side] = stop
    if (isRepeated || !isOwn) return
    const { fix, stops } = ruleOf(refusal)
    this.#report(
      'warn',
      { side, status: refusal.status, retryAt: this.#retryAt(stop), ...(fix === '' ? {} : { fix }) },
      `The exchange refuses ${NAMES[side]}${stops === 'both' ? ' and everything else' : ''}: ${refusal.reason}; next attempt ${this.#retryAt(stop)}`,
    )
  }

  /** As ISO 8601 in UTC, to the second. */
  #retryAt({ untilMs }: Stop): string {
    const wallMs = this.#clock.wallMicros() / 1000 + (untilMs - this.#clock.monotonicMs())
    return `${new Date(Math.ceil(wallMs / 1000) * 1000).toISOString().slice(0, 19)}Z`
  }
}

/** Maps a status to a bounded set of metric labels. */
function statusLabel(status: number): string {
  if ([403, 418, 429, 451].includes(status)) return String(status)
  return status >= 500 ? '5xx' : 'other'
}
