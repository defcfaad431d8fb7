/** The stream types that Tapeline records; the last part of a stream name (`btcusdt@aggTrade`). */
export const EVENT_TYPES = ['trade', 'aggTrade', 'bookTicker'] as const

export type EventType = (typeof EVENT_TYPES)[number]

/**
 * `trade` → `btcusdt@trade`. Stream names are lower-case; the exchange sends nothing for others.
 */
export function streamName(symbol: string, type: EventType): string {
  return `${symbol.toLowerCase()}@${type}`
}

/** Returns the event type of a stream name; null for other streams. */
export function eventTypeOf(stream: string): EventType | null {
  const type = stream.slice(stream.indexOf('@') + 1)
  return type === 'trade' || type === 'aggTrade' || type === 'bookTicker' ? type : null
}

/**
 * Dead-letter reason of an event whose id another event has. The exchange's own data has such
 * aggregates.
 */
export const SECOND_UNDER_ID = 'another event is stored under its id'

/**
 * Dead-letter reason of an event with an old id, delivered after another connection had shown that
 * the ids restarted.
 */
export const OF_ENDED_IDS = 'it came after the ids of its stream had begun again'
