import type { StreamType } from '../../foundation/market/event.ts'
import type { Recording } from '../../foundation/market/recording.ts'

/** A time in which something was recorded, milliseconds since the Unix epoch. */
export interface Period {
  readonly fromMs: number
  readonly toMs: number
}

/** When each type of each symbol was recorded, the earliest period first; periods do not touch. */
export type Announced = ReadonlyMap<string, ReadonlyMap<StreamType, readonly Period[]>>

/**
 * An announcement ends with the next one of its shard. One with another number of shards ends all earlier ones, since
 * their shards no longer exist.
 * @param recordings the oldest first
 * @param range nothing before or after it counts
 */
export function announcedPeriods(recordings: readonly Recording[], range: Period): Announced {
  const announced = new Map<string, Map<StreamType, Period[]>>()
  for (const [at, recording] of recordings.entries()) {
    const next = recordings.slice(at + 1).find((later) => endsWith(recording, later))
    const fromMs = Math.max(recording.at, range.fromMs)
    const toMs = Math.min(next?.at ?? range.toMs, range.toMs)
    if (toMs < fromMs) continue
    for (const symbol of recording.symbols) {
      const types = announced.get(symbol) ?? new Map<StreamType, Period[]>()
      for (const type of recording.event_types) types.set(type, joined(types.get(type), { fromMs, toMs }))
      announced.set(symbol, types)
    }
  }
  return announced
}

function endsWith({ shard }: Recording, later: Recording): boolean {
  return later.shard === shard || shardCount(later.shard) !== shardCount(shard)
}

/** `0/2` is the first of two. */
function shardCount(shard: string): string {
  return shard.slice(shard.indexOf('/') + 1)
}

/** A restart announces again what was recorded until then. */
function joined(periods: readonly Period[] = [], next: Period): Period[] {
  const last = periods.at(-1)
  if (last === undefined || last.toMs < next.fromMs) return [...periods, next]
  return [...periods.slice(0, -1), { fromMs: last.fromMs, toMs: Math.max(last.toMs, next.toMs) }]
}
