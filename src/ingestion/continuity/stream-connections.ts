/** How far apart the same event may arrive over two connections; also how long one waits for the other. */
export const HOLD_LIMIT_MS = 5000

/** A connection, as far as its part in the streams is concerned. Times are of the monotonic clock. */
export interface MergedConnection {
  readonly id: number
  /** Its first event of any stream; infinite before. */
  flowingMs: number
  /** Its latest event of any stream. */
  heardMs: number
  /** Rises when more of its streams are confirmed: what it met before says nothing of them. */
  generation: number
  /** Older connections that have delivered what this one has, so that nothing lies between the two. */
  readonly met: Set<number>
}

/** One connection's part in a stream. */
export interface ConnectionStream {
  readonly source: MergedConnection
  /** Since when the exchange has it subscribed; infinite while that is asked for and not confirmed. */
  subscribedMs: number
  /** The highest id it has delivered of this stream; null before the first. */
  last: number | null
  /** The highest id of a sequence that is over, which it may still be delivering; null once its ids have fallen, too. */
  past: number | null
  lastMs: number
  /** The first id of the source's present generation; null before it. */
  first: number | null
  generation: number
  /** Its first events wait for the older connections to get there. */
  joining: boolean
}

export function newMergedConnection(id: number): MergedConnection {
  return {
    id,
    flowingMs: Number.POSITIVE_INFINITY,
    heardMs: Number.NEGATIVE_INFINITY,
    generation: 0,
    met: new Set(),
  }
}

export function newConnectionStream(
  source: MergedConnection,
  subscribedMs: number,
  joining: boolean,
): ConnectionStream {
  const lastMs = Number.NEGATIVE_INFINITY
  return { source, subscribedMs, last: null, past: null, lastMs, first: null, generation: -1, joining }
}

/** Since when it counts as delivering: its connection has delivered something, and the stream is subscribed on it. */
export function liveSinceMs({ source, subscribedMs }: ConnectionStream): number {
  return Math.max(source.flowingMs, subscribedMs)
}

/** It counts as delivering, and is not silent for longer than the stream's way. */
export function isLive(leg: ConnectionStream, nowMs: number, patienceMs: number): boolean {
  const sinceMs = liveSinceMs(leg)
  return sinceMs < Number.POSITIVE_INFINITY && nowMs - Math.max(leg.lastMs, sinceMs) <= patienceMs
}

/** The ids of its stream have begun anew: how far it had got means nothing any more. */
export function beginLegAnew(leg: ConnectionStream, isThere: boolean): void {
  leg.past = isThere ? null : leg.last
  leg.last = null
}

/** Takes an event into account, and whom its connection has met by it. */
export function noteDelivery(
  leg: ConnectionStream,
  id: number,
  nowMs: number,
  legs: Iterable<ConnectionStream>,
): void {
  const { source } = leg
  source.flowingMs = Math.min(source.flowingMs, nowMs)
  source.heardMs = nowMs
  leg.subscribedMs = Math.min(leg.subscribedMs, nowMs)
  leg.lastMs = nowMs
  if (leg.past !== null && id > leg.past) {
    leg.past = id
    return
  }
  leg.past = null
  leg.last = Math.max(leg.last ?? id, id)
  if (leg.generation !== source.generation) {
    leg.generation = source.generation
    leg.first = id
  }
  for (const other of legs) {
    if (other === leg) continue
    const [older, younger] = liveSinceMs(leg) <= liveSinceMs(other) ? [leg, other] : [other, leg]
    if (younger.source.met.has(older.source.id)) continue
    if (younger.generation !== younger.source.generation || younger.first === null) continue
    if (older.last !== null && older.last >= younger.first) younger.source.met.add(older.source.id)
  }
}

/**
 * Whether nothing of a stream is lost between a leg that ends and one that stays: the one that stays is live, began
 * before the other did or has met it, and was not silent while the other still delivered.
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
