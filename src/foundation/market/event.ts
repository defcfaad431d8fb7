/** The stream types Tapeline takes; the last two words of a stream name (`btcusdt@aggTrade`). */
export const EVENT_TYPES = ['trade', 'aggTrade', 'bookTicker'] as const

export type EventType = (typeof EVENT_TYPES)[number]

/** `trade` → `btcusdt@trade`. Stream names are lower-case; the exchange answers others with silence. */
export function streamName(symbol: string, type: EventType): string {
  return `${symbol.toLowerCase()}@${type}`
}

/** The event type of a stream name, or null for streams that Tapeline does not take. */
export function eventTypeOf(stream: string): EventType | null {
  const type = stream.slice(stream.indexOf('@') + 1)
  return type === 'trade' || type === 'aggTrade' || type === 'bookTicker' ? type : null
}

/** Why an event is a dead letter whose id another event has. The exchange's own data has such aggregates. */
export const SECOND_UNDER_ID = 'another event is stored under its id'

/** Why an event is a dead letter that a connection delivered after another had shown that the ids of its stream begin again. */
export const OF_ENDED_IDS = 'it came after the ids of its stream had begun again'
