import { type Clock, systemClock } from './clock.ts'

/** Waits between attempts, in milliseconds. */
export interface BackoffPolicy {
  readonly initialMs: number
  readonly maxMs: number
}

/**
 * Returns the wait after `attempt` failures: doubled from `initialMs` to `maxMs`, and random within
 * its upper half, so that instances do not retry together. At least `floorMs` (a `Retry-After`).
 */
export function delayFor(attempt: number, policy: BackoffPolicy, random: number, floorMs = 0): number {
  const delay = Math.min(policy.maxMs, policy.initialMs * 2 ** Math.min(attempt - 1, 30))
  return Math.max(floorMs, delay / 2 + (delay / 2) * random)
}

const SYSTEM: Pick<Clock, 'schedule'> = systemClock()

/** Waits `ms` of the clock, or rejects with the signal's reason as soon as it aborts. */
export function sleep(ms: number, signal?: AbortSignal, clock = SYSTEM): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted()
    const onAbort = () => {
      cancel()
      reject(signal?.reason)
    }
    const cancel = clock.schedule(ms, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** Time and randomness: those of the machine, or of a simulation. */
export interface RetryPorts {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
}

/** Repeats `attempt` until it succeeds or the signal aborts. @param onFailure throws to give up */
export async function retry<Result>(
  attempt: () => Promise<Result>,
  onFailure: (error: unknown) => void,
  policy: BackoffPolicy,
  { clock, random }: RetryPorts,
  signal: AbortSignal,
): Promise<Result> {
  for (let failures = 1; ; failures++) {
    try {
      return await attempt()
    } catch (error) {
      signal.throwIfAborted()
      onFailure(error)
      await sleep(delayFor(failures, policy, random()), signal, clock)
    }
  }
}

/** Calls `work` until the signal aborts, each time after the milliseconds that the last call returned. */
export async function repeat(work: () => Promise<number>, signal: AbortSignal, clock: Clock): Promise<void> {
  while (!signal.aborted) {
    // Rejects only when the signal aborts.
    await sleep(await work(), signal, clock).catch(() => {})
  }
}

/** Settles like `promise`, or rejects as soon as the signal aborts; the work continues. */
export async function unlessAborted<Result>(promise: Promise<Result>, signal: AbortSignal): Promise<Result> {
  const aborted = Promise.withResolvers<never>()
  const onAbort = () => aborted.reject(signal.reason)
  if (signal.aborted) onAbort()
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** Settles like `work`, or rejects after the limit; the work continues. @param what for "… within 5 s" */
export async function withinLimit<Result>(
  work: Promise<Result>,
  limitMs: number,
  what: string,
): Promise<Result> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => late.reject(new Error(`${what} within ${limitMs / 1000} s`)), limitMs)
  try {
    return await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

/** A sliding-window limit on attempts. Binance allows 300 connection attempts in 5 minutes per IP. */
export class AttemptLimit {
  readonly #limit: number
  readonly #windowMs: number
  readonly #attempts: number[] = []

  constructor(limit: number, windowMs: number) {
    this.#limit = limit
    this.#windowMs = windowMs
  }

  /** Records an attempt and returns 0 if one is allowed; otherwise returns the ms until the next. */
  take(nowMs: number): number {
    while (this.#attempts.length > 0 && nowMs - (this.#attempts[0] ?? 0) >= this.#windowMs)
      this.#attempts.shift()
    const oldest = this.#attempts[0]
    if (this.#attempts.length >= this.#limit && oldest !== undefined) return oldest + this.#windowMs - nowMs
    this.#attempts.push(nowMs)
    return 0
  }

  /** Waits until an attempt is allowed, and records it. */
  async wait(clock: Clock, signal: AbortSignal): Promise<void> {
    for (let waitMs = this.take(clock.monotonicMs()); waitMs > 0; waitMs = this.take(clock.monotonicMs()))
      await sleep(waitMs, signal, clock)
  }
}
