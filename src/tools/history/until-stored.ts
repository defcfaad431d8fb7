import { sleep } from '../../foundation/runtime/backoff.ts'
import type { Clock } from '../../foundation/runtime/clock.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { countText } from '../../foundation/telemetry/plural.ts'

const POLL_MS = 500

/** A service that runs may take this long to write what it has read for two flush intervals. */
const MARGIN_MS = 60_000

interface StoredWait {
  readonly clock: Pick<Clock, 'monotonicMs' | 'schedule'>
  /** How often the service that stores the topics writes. */
  readonly flushIntervalMs: number
  readonly signal: AbortSignal
}

/**
 * Waits until all messages are stored.
 *
 * @param unstored counts those that are not
 * @throws TapelineError `DATABASE` if their number does not fall for longer than the service needs
 */
export async function untilStored(
  unstored: () => Promise<number>,
  topics: readonly string[],
  { clock, flushIntervalMs, signal }: StoredWait,
  onWaiting: (messages: number) => void,
): Promise<void> {
  const limitMs = 2 * flushIntervalMs + MARGIN_MS
  let least = Number.POSITIVE_INFINITY
  let sinceMs = clock.monotonicMs()
  for (;;) {
    const left = await unstored()
    if (left === 0) return
    if (left < least) sinceMs = clock.monotonicMs()
    least = Math.min(least, left)
    if (clock.monotonicMs() - sinceMs > limitMs)
      throw new TapelineError(
        'DATABASE',
        `${countText(left)} messages of ${topics.join(' and ')} are not stored, and none was for ${limitMs / 1000} s`,
        {
          fix: 'Start the service that stores them (`consume`, or `archive` with --archive), and run this again. If it runs, give this command its FLUSH_INTERVAL_MS or ARCHIVE_FLUSH_INTERVAL_MS.',
        },
      )
    onWaiting(left)
    await sleep(POLL_MS, signal, clock)
  }
}
