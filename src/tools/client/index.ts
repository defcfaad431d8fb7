/**
 * Reads the events that Tapeline has put into Kafka: `import { readEvents } from 'tapeline'`. See docs/client.md.
 */
export { TapelineError } from '../errors.ts'
export type { Position } from '../kafka/position.ts'
export type { AggTradeEvent, BookTickerEvent, MarketEvent, TradeEvent } from './market-event.ts'
export { type ReadOptions, readEvents } from './read-events.ts'
