import type { MarketEvent } from './market.ts'

/** The fate of a quote. Higher values: 10 + the id of the stall that swallowed it. */
export const FATE = {
  /** No connection was open. */
  nobody: 0,
  /** Written completely to a connection. */
  sent: 1,
  /** Lost on every open connection without a trace. */
  dropped: 2,
  /** Written to one connection, lost on another. */
  sentAndDropped: 3,
  stalled: 10,
} as const

/** Combines the fates on two connections. */
export function both(fate: number, other: number): number {
  if (fate === FATE.nobody || fate === other) return other
  const fates = [fate, other]
  if (!fates.includes(FATE.sent) && !fates.includes(FATE.sentAndDropped)) return other
  return fates.includes(FATE.dropped) || fates.includes(FATE.sentAndDropped) ? FATE.sentAndDropped : FATE.sent
}

/**
 * The connection closed before delivery: if another open connection had lost the quotes, the loss
 * is undetectable.
 */
export function loseOnTheWay(quotes: ReadonlyArray<NonNullable<MarketEvent['quote']>>): void {
  for (const { quotes: all, index } of quotes) {
    if (all.fates[index] === FATE.sentAndDropped) all.fates[index] = FATE.dropped
  }
}
