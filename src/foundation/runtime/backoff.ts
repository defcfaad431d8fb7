/** Waits between attempts, in milliseconds. */
export interface BackoffPolicy {
  readonly initialMs: number
  readonly maxMs: number
}

/**
 * Returns the wait before attempt `attempt + 1`, where `attempt` counts the failures so far, from
 * 1.
 *
 * The delay doubles from `initialMs` to `maxMs`. The wait is random within its upper half, so that
 * instances that failed together do not retry together. It is at least `floorMs` (a `Retry-After`).
 *
 * @param random a number in [0, 1)
 */
export function delayFor(attempt: number, policy: BackoffPolicy, random: number, floorMs = 0): number {
  const delay = Math.min(policy.maxMs, policy.initialMs * 2 ** Math.min(attempt - 1, 30))
  return Math.max(floorMs, delay / 2 + (delay / 2) * random)
}

/** Waits `ms`, or rejects with the signal's reason as soon as it aborts. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason)
      return
    }
    const onAbort = () => {
      clearTimeout(timer)
      reject(signal?.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/**
 * Settles like `promise`, or rejects with the signal's reason as soon as it aborts; the work
 * continues.
 */
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
