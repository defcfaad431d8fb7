import type { MarketEvent } from './market.ts'

/** What became of a quote when it was sent out. Above them: 10 + the index of the stall that swallowed it. */
export const FATE = {
  /** No connection was open. */
  nobody: 0,
  /** Written whole to a connection. */
  sent: 1,
  /** Lost on every open connection without a trace. */
  dropped: 2,
  /** Written to one connection, lost on another. */
  sentAndDropped: 3,
  stalled: 10,
} as const

/** What one connection got and what another did. */
export function both(fate: number, other: number): number {
  if (fate === FATE.nobody || fate === other) return other
  const fates = [fate, other]
  if (!fates.includes(FATE.sent) && !fates.includes(FATE.sentAndDropped)) return other
  return fates.includes(FATE.dropped) || fates.includes(FATE.sentAndDropped) ? FATE.sentAndDropped : FATE.sent
}

/** The connection closed before they came: where another that stays had lost them, nobody can know. */
export function loseOnTheWay(quotes: ReadonlyArray<NonNullable<MarketEvent['quote']>>): void {
  for (const { quotes: all, index } of quotes) {
    if (all.fates[index] === FATE.sentAndDropped) all.fates[index] = FATE.dropped
  }
}
