import type { TrueQuote } from './market.ts'

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

/** The connection closed before delivery. If another one had lost the quotes, the loss is undetectable. */
export function loseOnTheWay(quotes: readonly TrueQuote[]): void {
  for (const quote of quotes) if (quote.fate === FATE.sentAndDropped) quote.fate = FATE.dropped
}
