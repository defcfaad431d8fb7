import type { IdRange } from '../src/foundation/market/id-ranges.ts'

/** A stored snapshot of an order book. Prices are approximate; an edge is null if its side is complete. */
export interface Snapshot {
  /** Its `lastUpdateId`. */
  readonly id: number
  readonly limit: number
  /** The process of ingestion that requested it: a new one does not know the snapshots of the one before. */
  readonly process: number
  readonly takenMs: number
  readonly bestBid: number | null
  readonly bestAsk: number | null
  readonly bidEdge: number | null
  readonly askEdge: number | null
}

/**
 * - `start`: the first one
 * - `hole`: the first one after lost updates
 * - `restart`: the first one of a process of ingestion
 * - `deeper`: more levels than those before
 * - `edge`: the price had come near the edge of the one before
 * - `age`: the one before was old
 * - `none`: none of these
 */
export type SnapshotReason = 'start' | 'hole' | 'restart' | 'deeper' | 'edge' | 'age' | 'none'

/** Ingestion requests a snapshot when a quarter of a side is left; the price moves on until it is taken. */
const NEAR = 0.3

/**
 * Returns why each snapshot of a symbol was requested, as far as stored data shows it.
 *
 * @param snapshots in the order of receipt
 * @param lost update ids that no stored diff covers, in order
 * @param oldMs age at which a snapshot may be replaced
 */
export function reasonsOf(
  snapshots: readonly Snapshot[],
  lost: readonly IdRange[],
  oldMs = Number.POSITIVE_INFINITY,
): Map<SnapshotReason, number> {
  const counts = new Map<SnapshotReason, number>()
  const chains = new Set<number>()
  const taken = new Map<string, Snapshot[]>()
  for (const snapshot of snapshots) {
    const chain = lost.filter(({ to }) => to <= snapshot.id).length
    const key = `${chain} ${snapshot.process}`
    const before = taken.get(key) ?? []
    taken.set(key, [...before, snapshot])
    const reason = before.length > 0 ? laterReason(snapshot, before, oldMs) : firstReason(chain, chains)
    chains.add(chain)
    counts.set(reason, (counts.get(reason) ?? 0) + 1)
  }
  return counts
}

/** @param chains those with an earlier snapshot */
function firstReason(chain: number, chains: ReadonlySet<number>): SnapshotReason {
  if (chains.has(chain)) return 'restart'
  return chain > 0 ? 'hole' : 'start'
}

/** @param before the earlier ones of the process since the last lost update */
function laterReason(snapshot: Snapshot, before: readonly Snapshot[], oldMs: number): SnapshotReason {
  const last = before.at(-1)
  if (snapshot.limit > Math.max(...before.map(({ limit }) => limit))) return 'deeper'
  if (last === undefined) return 'none'
  const left = Math.min(
    roomLeft(last.bestBid, last.bidEdge, snapshot.bestBid),
    roomLeft(last.bestAsk, last.askEdge, snapshot.bestAsk),
  )
  if (left < NEAR) return 'edge'
  return snapshot.takenMs - last.takenMs >= oldMs ? 'age' : 'none'
}

function roomLeft(best: number | null, edge: number | null, price: number | null): number {
  if (best === null || edge === null || price === null || best === edge) return 1
  return (price - edge) / (best - edge)
}
