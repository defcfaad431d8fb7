/** Reads events from Kafka, and keeps order books: `import { readEvents } from 'tapeline'`. See docs/client.md. */

export type { Position } from '../../foundation/kafka/partition.ts'
export { TapelineError } from '../../foundation/runtime/errors.ts'
export { LiveBook, type LiveBookSide } from './live-book.ts'
export type {
  AggTradeEvent,
  BookLevel,
  BookTickerEvent,
  DepthEvent,
  DepthSnapshotEvent,
  MarketEvent,
  TradeEvent,
} from './market-event.ts'
export { type ReadOptions, readEvents } from './read-events.ts'
