import assert from 'node:assert/strict'
import { sleep } from '../../src/foundation/runtime/backoff.ts'
import { describeError } from '../../src/foundation/runtime/errors.ts'

/**
 * Polls until `condition` returns something other than false, null or undefined, and returns that.
 *
 * A condition that throws counts as "not yet"; a timeout reports its last error.
 *
 * @param what completes the sentence "Waited … for …"
 */
export async function until<Result>(
  what: string,
  condition: () => Promise<Result> | Result,
  timeoutMs = 60_000,
  everyMs = 50,
): Promise<Exclude<Result, false | null | undefined>> {
  const deadline = performance.now() + timeoutMs
  let lastError: unknown
  for (;;) {
    try {
      const result = await within(Math.max(1, deadline - performance.now()), what, condition)
      if (isThere(result)) return result
      lastError = undefined
    } catch (error) {
      lastError = error
    }
    if (performance.now() >= deadline) {
      const why = lastError === undefined ? '' : `; last error: ${describeError(lastError)}`
      throw new Error(`Waited ${timeoutMs} ms for ${what}${why}`, { cause: lastError })
    }
    await sleep(everyMs)
  }
}

/** Runs `work`, and rejects if it takes longer than `timeoutMs`. */
export async function within<Result>(
  timeoutMs: number,
  what: string,
  work: () => Promise<Result> | Result,
): Promise<Result> {
  let timer: NodeJS.Timeout | undefined
  try {
    return await Promise.race([
      Promise.resolve().then(work),
      new Promise<never>((_resolve, reject) => {
        timer = setTimeout(
          () => reject(new Error(`${what}: no answer after ${Math.round(timeoutMs)} ms`)),
          timeoutMs,
        )
      }),
    ])
  } finally {
    clearTimeout(timer)
  }
}

function isThere<Result>(result: Result): result is Exclude<Result, false | null | undefined> {
  return result !== false && result !== null && result !== undefined
}

/** Returns what the work rejects with. */
export function failureOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => assert.fail('it did not end in an error'),
    (error: unknown) => error,
  )
}
