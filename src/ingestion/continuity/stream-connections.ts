/** Maximum delay between copies of an event over two connections: so long one waits for the other. */
export const HOLD_LIMIT_MS = 5000

/** A connection as one source of streams. Times are of the monotonic clock. */
export interface MergedConnection {
  readonly id: number
  /** Time of its first event of any stream; infinite before. */
  flowingMs: number
  /** Time of its latest event of any stream. */
  heardMs: number
  /** Increases when more of its streams are confirmed; what it met before does not cover those. */
  generation: number
  /** Older connections that have delivered this one's first events: nothing is missing in between. */
  readonly met: Set<number>
}

/** One connection's delivery of a stream. */
export interface ConnectionStream {
  readonly source: MergedConnection
  /** Since when it is subscribed; infinite while the exchange has not confirmed it. */
  subscribedMs: number
  /** The highest id it has delivered of this stream; null before the first. */
  last: number | null
  /** The highest id of an ended sequence that it may still deliver; null once its ids have dropped. */
  past: number | null
  lastMs: number
  /** The first id in the source's current generation; null before it. */
  first: number | null
  generation: number
  /** Whether its first events wait until the older connections have caught up. */
  joining: boolean
}

/** Returns since when the connection has delivered something and the stream is subscribed. */
export function liveSinceMs({ source, subscribedMs }: ConnectionStream): number {
  return Math.max(source.flowingMs, subscribedMs)
}

/** Whether it counts as delivering and is not silent for longer than the stream's patience. */
export function isLive(leg: ConnectionStream, nowMs: number, patienceMs: number): boolean {
  const sinceMs = liveSinceMs(leg)
  return sinceMs < Number.POSITIVE_INFINITY && nowMs - Math.max(leg.lastMs, sinceMs) <= patienceMs
}

/**
 * Whether no event of a stream is lost when one leg ends and another stays. The staying leg must be
 * live, must have begun earlier or met the ending one, and must not have been silent while the
 * ending one delivered.
 */
export function takesOver(
  staying: ConnectionStream,
  ending: ConnectionStream,
  nowMs: number,
  patienceMs: number,
): boolean {
  if (!isLive(staying, nowMs, patienceMs)) return false
  const isOlder = liveSinceMs(staying) <= liveSinceMs(ending)
  return (
    (isOlder || !staying.joining || staying.source.met.has(ending.source.id)) &&
    ending.lastMs <= Math.max(staying.lastMs, liveSinceMs(staying)) + HOLD_LIMIT_MS &&
    ending.source.heardMs <= staying.source.heardMs + HOLD_LIMIT_MS
  )
}
