import { sleep } from '../src/foundation/runtime/backoff.ts'
import type { ConsumerStatus, IngestionStatus } from '../src/foundation/telemetry/status.ts'
import { fetchStatus } from '../test/support/services.ts'

/** A service's state at one moment; status and readiness come from two consecutive requests. */
export interface Observation<Status> {
  /** Wall-clock milliseconds just before the requests. */
  readonly atMs: number
  /** `GET /` answered 200. */
  readonly ready: boolean
  /** Null if it did not answer. */
  readonly status: Status | null
}

/** Interval between requests; a slower answer delays the next request. */
const POLL_MS = 250
const ANSWER_LIMIT_MS = 2000

/** Polls a service until `signal` aborts. */
export async function watchService<Status>(
  url: string,
  onObserved: (observation: Observation<Status>) => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    const atMs = Date.now()
    const [ready, status] = await Promise.all([isReady(url), statusOf<Status>(url)])
    if (signal.aborted) return
    onObserved({ atMs, ready, status })
    await sleep(Math.max(0, atMs + POLL_MS - Date.now()), signal).catch(() => undefined) // Aborted: the loop's condition sees it.
  }
}

async function isReady(url: string): Promise<boolean> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(ANSWER_LIMIT_MS) })
    await response.text()
    return response.ok
  } catch {
    return false // Killed, paused or starting: not ready.
  }
}

async function statusOf<Status>(url: string): Promise<Status | null> {
  try {
    return await fetchStatus<Status>(url)
  } catch {
    return null // As above.
  }
}

/**
 * Describes a mismatch of ingestion's counters; null if they add up. See guarantee G5 of the
 * specification.
 */
export function ingestionImbalance({ counters }: Pick<IngestionStatus, 'counters'>): string | null {
  const { received, forwarded, duplicate, control, ignored, rejected, held } = counters
  const { backfilled, acknowledged, discarded, queued, inFlight } = counters
  const seen = forwarded + duplicate + control + ignored + rejected + held
  if (received !== seen)
    return `ingestion received ${received} frames and accounts for ${seen}: ${JSON.stringify(counters)}.`
  const sent = acknowledged + discarded + queued + inFlight
  if (forwarded + backfilled !== sent)
    return `ingestion forwarded and backfilled ${forwarded + backfilled} events and accounts for ${sent}: ${JSON.stringify(counters)}.`
  return null
}

/** Does the same for the consumer. */
export function consumerImbalance({ counters }: Pick<ConsumerStatus, 'counters'>): string | null {
  const { consumed, inserted, alreadyThere, deadLettered, discarded, pending } = counters
  const known = inserted + alreadyThere + deadLettered + discarded + pending
  if (consumed === known) return null
  return `the consumer consumed ${consumed} messages and accounts for ${known}: ${JSON.stringify(counters)}.`
}
